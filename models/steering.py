"""How far a reward may steer."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

N = TypeVar("N", float, Tensor)


def damped(strength: float, variance: N) -> N:
    """A reward's weight, less where the data is uncertain: lambda / (1 + 2 lambda sigma^2_(1|t)).

    Steering by the reward of the data prediction D(x_t), in place of its mean over the data that x_t leaves possible,
    goes too far inside a mode (arXiv 2606.02884, which names this cure). Here lambda is the strength of a move that is
    measured in noise levels, and the variance that of data of unit variance, sigma^2 / (alpha^2 + sigma^2).

    Args:
        strength: lambda, at least 0.
        variance: sigma^2_(1|t), at least 0: of the data, given x_t.
    """
    return strength / (1 + 2 * strength * variance)
