"""Encoders whose features a network can be aligned with: one line each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from sitsearch.models.training.glyphs.encoder import GlyphEncoder


class Encoder(Protocol):
    """Features of clean data.

    Attributes:
        channels: features of a token.
    """

    channels: int

    def __call__(self, x: Tensor) -> Tensor:
        """States `[B, C, H, W]` to features `[B, N, channels]`, one a token of the network, without gradients."""


ENCODERS: dict[str, Callable[[Path, torch.device], Encoder]] = {"glyph_classifier": GlyphEncoder}
