"""Sampling a model on another path than its own (Kim et al. 2025, arXiv 2503.19385, section 4.2).

A sample of one path, rescaled, is a sample of the other at the time of equal signal-to-noise ratio: x_A / |(alpha_A,
sigma_A)| = x_B / |(alpha_B, sigma_B)|. Both then hold the same data and the same noise, in the same proportions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sitsearch.models.interpolants import Interpolant, like


@dataclass(frozen=True)
class PathChange:
    """A model trained on `own`, asked on `path`.

    Attributes:
        own: the interpolant that the model was trained on.
        prediction: what the model predicts.
        path: the interpolant to sample on.
    """

    own: Interpolant
    prediction: str
    path: Interpolant

    def to_own(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the model is to be asked for the state `x [B, ...]` at `t [B]` of `path`: its own x and t."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        own_t = self.own.time_at(alpha, sigma)
        scale = torch.hypot(self.own.alpha(own_t), self.own.sigma(own_t)) / torch.hypot(alpha, sigma)
        return like(scale, x) * x, own_t

    def velocity(self, value: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The velocity of `path` at `(x, t)` from what the model predicted at `to_own(x, t)`."""
        own_x, own_t = self.to_own(x, t)
        noise = self.own.convert(value, own_x, own_t, self.prediction, "noise")
        data = self.own.convert(value, own_x, own_t, self.prediction, "data")
        # Both, as either alone would have to be divided by an alpha or a sigma of `path` that is zero at an end.
        t = like(t, x)
        return self.path.d_alpha(t) * data + self.path.d_sigma(t) * noise
