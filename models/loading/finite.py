"""Weights that are numbers: a network with a NaN in it loads like any other, and draws black pictures."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from sitsearch.models.errors import BadWeights


def check_finite(tensors: Iterable[tuple[str, Tensor]], source: Path) -> None:
    """Refuse weights that hold NaN or infinity, as a training that went wrong leaves them.

    Args:
        tensors: by name.
        source: what they were read from.

    Raises:
        BadWeights: one does; the message names it.
    """
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise BadWeights(f"the weights in {source} are not finite: {name!r} holds NaN or infinity")
