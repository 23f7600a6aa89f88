"""The exponential moving average of the weights, which is what samples best."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from sitsearch.models.sit import SiT


class Ema:
    """A float32 copy of a network that follows it.

    Args:
        net: the network; the copy begins at its weights, on its device.
        decay: in [0, 1), of a step.
        warmup: use at most (1 + n) / (10 + n) in step n (from 0), so that the first steps are soon forgotten.
    """

    def __init__(self, net: SiT, decay: float, *, warmup: bool = False) -> None:
        self.net = copy.deepcopy(net).requires_grad_(False)
        self.decay, self.warmup = decay, warmup
        pairs = [(mine, p) for mine, p in zip(self.net.parameters(), net.parameters(), strict=True) if p.requires_grad]
        self._mine: list[Tensor] = [mine for mine, _ in pairs]
        self._live: list[Tensor] = [p for _, p in pairs]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the network after its step `step`, counted from 0."""
        decay = min(self.decay, (step + 1) / (step + 10)) if self.warmup else self.decay
        torch._foreach_lerp_(self._mine, self._live, 1 - decay)
