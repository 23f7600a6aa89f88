"""Data predictions on the way, for verifiers that judge a trajectory while it is made."""

from __future__ import annotations

import torch
from torch import Tensor

from sitsearch.models.interpolants import Interpolant, like
from sitsearch.models.verifiers.base import PREVIEW_NOISE_LEVEL


class Previews:
    """The data predictions of a cohort at the level that is wanted, or the last ones before; see `Sample.preview`.

    Attributes:
        data: `[B, C, H, W]`; None before there was one.
    """

    def __init__(self, rows: int, device: torch.device) -> None:
        self.data: Tensor | None = None
        self._clear = torch.zeros(rows, dtype=torch.bool, device=device)  # those at the level

    def see(self, data: Tensor, path: Interpolant, t: Tensor, active: Tensor | None) -> None:
        """Keep data predictions `[B, C, H, W]` made at times `t [B]` of rows that lack one at the level.

        `active` are the places of the rows that were evaluated; None is all of them.
        """
        alpha, sigma = path.alpha(t), path.sigma(t)
        clear = sigma / (alpha + sigma) <= PREVIEW_NOISE_LEVEL  # the level of equal signal-to-noise on the linear path
        if self.data is None:
            self.data, self._clear = data, clear
            return
        wanted = ~self._clear
        if active is not None:
            wanted &= torch.zeros_like(wanted).index_fill(0, active, True)
        self.data = torch.where(like(wanted, data), data, self.data)
        self._clear |= wanted & clear
