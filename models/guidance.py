"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Channels = Literal["all", "first3"]


def combine(conditional: Tensor, unconditional: Tensor, scale: float, *, channels: Channels = "all") -> Tensor:
    """The guided field, `uncond + scale * (cond - uncond)`.

    Args:
        conditional, unconditional: `[B, C, H, W]`, the network's predictions with the class and with the null class.
        scale: guidance scale; 1 gives the conditional field.
        channels: `all`, or `first3`: only the first three channels are guided and the rest stay conditional, which is
            what the published SiT samples were made with.
    """
    guided = unconditional + scale * (conditional - unconditional)
    if channels == "first3":
        guided = guided.clone()
        guided[:, 3:] = conditional[:, 3:]
    return guided
