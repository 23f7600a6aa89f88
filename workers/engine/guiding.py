"""Guidance of a cohort's integration: how the data predictions of its rows are moved on the way."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sitsearch.models.interpolants import Interpolant, like
from sitsearch.models.noise_tilt import tilted
from sitsearch.models.steering import damped
from sitsearch.workers.engine.gradients import Wanted
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.guides import Gradient, Lookahead
from sitsearch.workers.jobs.recipe import Integrate

#: Tensors that a guided cohort holds besides: what waits for the gradient, the gradient, and the move.
HELD = 3
#: Of times in float32.
ROUNDING = 1e-6


class Guiding(ABC):
    """What guides one integration of a cohort, whose rows share the times.

    Attributes:
        moves: data predictions of the step under way are moved.
    """

    moves = False

    @abstractmethod
    def begin(self, step: int, data: Tensor) -> Wanted | None:
        """Begin a step of the integration, at its first evaluation.

        Args:
            step: its number, from 0.
            data: `[B, C, H, W]`, the data predictions there.

        Returns:
            The gradients without which the step cannot be taken.
        """

    def take(self, gradients: Tensor, x: Tensor, t: Tensor) -> None:
        """The gradients `[B, C, H, W]` that were wanted, at the query `(x, t)`."""
        raise NotImplementedError

    @abstractmethod
    def moved(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data predictions `[B, C, H, W]` at `(x, t)` as they are moved in the step under way."""

    def tilted(self, noise: Tensor) -> Tensor:
        """The noise `[B, C, H, W]` of the step under way, with the gradients' share in it."""
        return noise


class GradientGuiding(Guiding):
    """Guidance by a verifier's gradient, see `GradientOptions`.

    One gradient is made a guided step, where the step's first evaluation lies. A method of several evaluations a step
    moves the data predictions of all of them alike, as far as they lie before the end of the interval.

    Args:
        guide: what all rows share.
        steps: guided steps of the integration, counted from 0.
        orders, ops: of each row.
        interpolant: of the field that is sampled.
    """

    def __init__(
        self,
        guide: Gradient,
        steps: Sequence[int],
        orders: Sequence[Order],
        ops: Sequence[Integrate],
        interpolant: Interpolant,
    ) -> None:
        self._guide, self._steps, self._path = guide, frozenset(steps), interpolant
        self._orders, self._ops = orders, ops
        self._gradient: Tensor | None = None
        self._weight: Tensor | None = None  # `[B]`, of each row's gradient: less than 1 where it is below the clip
        self._move: Tensor | None = None  # of the step, if it `moves`

    def begin(self, step: int, data: Tensor) -> Wanted | None:
        """See `Guiding`."""
        self._gradient, self.moves = None, False
        if step not in self._steps:
            return None
        guide, conditions = self._guide, tuple(order.condition for order in self._orders)
        seeds = (_seed(order, op, step) for order, op in zip(self._orders, self._ops, strict=True))
        return Wanted(guide.verifier, data, conditions, tuple((seed, guide.views) for seed in seeds))

    def take(self, gradients: Tensor, x: Tensor, t: Tensor) -> None:
        """See `Guiding`."""
        guide, path = self._guide, self._path
        self._gradient = gradients.to(x.device, x.dtype)
        alpha, sigma = like(path.alpha(t), x), like(path.sigma(t), x)
        length = self._gradient.square().flatten(1).mean(1).sqrt()  # root mean square
        least = max(guide.clip or 0.0, torch.finfo(x.dtype).tiny)
        self._weight = length / length.clamp(min=least)
        strength = damped(guide.strength, sigma**2 / (alpha**2 + sigma**2)) if guide.damped else guide.strength
        self.moves = guide.strength > 0
        self._move = strength * sigma / (alpha + sigma) * self._gradient / like(length.clamp(min=least), x)

    def moved(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """See `Guiding`."""
        return data if self._move is None or _after(t, self._guide.interval) else data + self._move

    def tilted(self, noise: Tensor) -> Tensor:
        """See `Guiding`."""
        if self._gradient is None or self._weight is None or not self._guide.noise:
            return noise
        return tilted(noise, self._gradient, self._guide.noise * self._weight**2)


@dataclass(frozen=True)
class References:
    """Samples whose rewards are known.

    Attributes:
        x: `[N, C, H, W]`, where the cohort's states are.
        rewards: `[N]`.
    """

    x: Tensor
    rewards: Tensor


class LookaheadGuiding(Guiding):
    """Guidance by samples whose rewards are known, see `Lookahead`; at all evaluations of its steps.

    Args:
        guide: what all rows share.
        steps: guided steps of the integration, counted from 0.
        references: as many as the guide counts.
        interpolant: of the field that is sampled.
    """

    def __init__(
        self, guide: Lookahead, steps: Sequence[int], references: References, interpolant: Interpolant
    ) -> None:
        self._guide, self._steps, self._path = guide, frozenset(steps), interpolant
        self._references = references

    def begin(self, step: int, data: Tensor) -> Wanted | None:
        """See `Guiding`; waits for nothing."""
        self.moves = step in self._steps
        return None

    def moved(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """See `Guiding`."""
        if _after(t, self._guide.interval):
            return data
        alpha, sigma = self._path.alpha(t), self._path.sigma(t).clamp(min=torch.finfo(x.dtype).eps)
        rows = zip(data, x, alpha, sigma, strict=True)  # one by one: a row's bits do not depend on the others
        return torch.stack([self._moved(*row) for row in rows])

    def _moved(self, data: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        guide, samples = self._guide, self._references.x.flatten(1)
        distance = (x.flatten() - alpha * samples).square().sum(1)
        near = -distance / (2 * sigma**2 * guide.temperature * x.numel())
        tilt = (near + guide.weight * self._references.rewards).softmax(0) - near.softmax(0)
        return data + guide.strength * (tilt @ samples).view_as(data)


def _after(t: Tensor, interval: tuple[float, float]) -> bool:
    """Whether times `t [B]`, which all rows share, lie after an interval, but for rounding."""
    return float(t[0]) > interval[1] + ROUNDING


def _seed(order: Order, op: Integrate, step: int) -> int:
    """Of a row's views at a step: a function of its recipe alone."""
    name = f"views|{order.recipe.seed}|{order.recipe.round}|{order.recipe.index}|{op.round}|{op.index}|{op.to}|{step}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=7).digest(), "big")
