"""Fields with known solutions, and a loop that runs a sampler on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sitsearch.models.interpolants import Interpolant, like
from sitsearch.models.samplers import Sampler, State

Field = Callable[[Tensor, Tensor], Tensor]


def states(sampler: Sampler, x: Tensor, field: Field, seed: int = 0) -> Iterator[State]:
    """Every state of a run, from the first to the done one; noise is drawn where it is asked for."""
    generator = torch.Generator().manual_seed(seed)

    def noise() -> Tensor:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype)

    state: State = sampler.init(x, noise() if sampler.noise_at_start else None)
    yield state
    while not state.done:
        drawn = noise() if state.draw is not None else None
        state = sampler.step(state, field(state.query_x, state.query_t), drawn)
        yield state


def run(sampler: Sampler, x: Tensor, field: Field, seed: int = 0) -> Tensor:
    """The final `x`."""
    *_, last = states(sampler, x, field, seed)
    return last.x


@dataclass(frozen=True)
class GaussianData:
    """Data from N(mean, std^2) in every coordinate: then every marginal is Gaussian and every prediction is known."""

    path: Interpolant
    mean: float = 1.5
    std: float = 0.4

    def moments(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x_t."""
        return self.path.alpha(t) * self.mean, (self.path.alpha(t) * self.std) ** 2 + self.path.sigma(t) ** 2

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The exact score."""
        mean, variance = self.moments(like(t, x))
        return (mean - x) / variance

    def prediction(self, kind: str) -> Field:
        """The exact network of that prediction."""

        def field(x: Tensor, t: Tensor) -> Tensor:
            if kind == "noise":
                return -self.path.sigma(like(t, x)) * self.score(x, t)
            if kind == "velocity" and self.path.name != "VP":
                # The mean of v given x: finite at both ends, unlike what the score says of it there.
                mean, variance = self.moments(like(t, x))
                t = like(t, x)
                a, s, da, ds = self.path.alpha(t), self.path.sigma(t), self.path.d_alpha(t), self.path.d_sigma(t)
                return da * self.mean + (a * da * self.std**2 + s * ds) / variance * (x - mean)
            return self.path.convert(self.score(x, t), x, t, "score", kind)

        return field
