"""GLASS: stochastic steps that are drawn by an ODE (Holderrieth et al. 2025, arXiv 2509.25170, ICLR 2026).

A step from x = alpha z + sigma eps at t to x' = alpha' z + sigma' eps' at t', the noises of correlation rho, is

    x' = gamma x + a(1) z + b(1) e
    gamma = rho sigma'/sigma,  a(1) = alpha' - gamma alpha,  b(1) = sigma' sqrt(1 - rho^2)

with e new noise. Given x, the law of y = a(1) z + b(1) e is reached by the flow of y(s) = a(s) z + b(s) e from s = 0,
where y is noise alone, to s = 1: y' = a' E[z | x, y] + b' E[e | x, y]. Both x and y are Gaussian measurements of z;
they come down to one of signal-to-noise ratio sqrt((alpha/sigma)^2 + (a/b)^2), of which the network knows E[z] at the
time of that ratio. So noise enters at s = 0 only, and the step is as exact as its inner ODE is: M evaluations a step,
the first one at x itself. One evaluation a step is DDIM with eta (Song et al. 2021, arXiv 2010.02502).

The inner path is a(s) = s a(1), b(s) = 1 - s + s b(1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sitsearch.models.interpolants import like
from sitsearch.models.samplers.base import END, Spec, State, all_rows, check_running, rows_at, spec_grid


@dataclass(frozen=True)
class _Step:
    """The numbers of one outer step, float64."""

    alpha: float
    sigma: float
    gamma: float
    a: float
    b: float

    def inner(self, s: float) -> tuple[float, float]:
        """a(s) and b(s)."""
        return s * self.a, 1 - s + s * self.b


@dataclass(frozen=True)
class Glass:
    """K outer steps of M inner evaluations. `state.index` counts evaluations; `state.memory` holds y within a step.

    Raises:
        ValueError: `rho` is not in [-1, 1], or `inner` is less than 1.
    """

    spec: Spec
    noise_at_start: bool = False

    def __post_init__(self) -> None:
        if self.spec.inner < 1:
            raise ValueError(f"inner must be at least 1, not {self.spec.inner}")
        if self.spec.rho is not None and not -1 <= self.spec.rho <= 1:
            raise ValueError(f"rho must be in [-1, 1], not {self.spec.rho}")

    @property
    def nfe(self) -> int:
        """Evaluations of one trajectory, exact."""
        return self.spec.steps * self.spec.inner

    def interval(self) -> tuple[float, float]:
        """From 0, but for predictions that say nothing about the data there; to 1, which is never asked for."""
        velocity = self.spec.prediction == "velocity" and self.spec.interpolant.name != "VP"
        low = 0.0 if velocity or self.spec.prediction == "data" else END
        return self.spec.within(low, 1.0)

    def init(self, x: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.init`; uses no noise."""
        return self._outer(x, 0)

    def step(self, state: State, prediction: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.step`; wants noise at the first evaluation of every outer step."""
        check_running(state)
        spec, inner = self.spec, state.index % self.spec.inner
        data = spec.interpolant.convert(prediction, state.query_x, state.query_t, spec.prediction, "data")
        numbers = self._numbers(state.index // spec.inner, state.x.dtype)
        if inner:
            (y,) = state.memory
        elif noise is None:
            raise ValueError("this step needs noise (see `State.draw`)")
        else:
            y = noise  # a(0) = 0, b(0) = 1
        (a, b), (next_a, next_b) = (numbers.inner((inner + i) / spec.inner) for i in (0, 1))
        y = next_a * data + next_b * ((y - a * data) / b)
        if inner + 1 == spec.inner:
            return self._outer(numbers.gamma * state.x + y, state.index + 1)
        return self._inner(state, y, numbers, next_a, next_b)

    def _outer(self, x: Tensor, index: int) -> State:
        """The state before the first evaluation of an outer step, or after the last."""
        outer, grid = index // self.spec.inner, self._grid(x.dtype)
        done = outer == self.spec.steps
        return State(
            x,
            x,
            rows_at(grid[outer], x),
            index,
            (),
            all_rows(x, not done),
            draw=None if done else outer,
            done=done,
        )

    def _inner(self, state: State, y: Tensor, numbers: _Step, a: float, b: float) -> State:
        """The state before a further evaluation of the step under way, at what x and y together say of the data."""
        path, x = self.spec.interpolant, state.x
        of_x, of_y = numbers.alpha / numbers.sigma**2, a / b**2
        precision = numbers.alpha * of_x + a * of_y
        mean, spread = (of_x * x + of_y * y) / precision, 1 / math.sqrt(precision)
        scale = math.hypot(1.0, spread)
        t = path.time_at(*(torch.tensor([part], dtype=torch.float64) for part in (1 / scale, spread / scale)))
        t = t.clamp(max=1 - END if path.name == "VP" or self.spec.prediction != "velocity" else 1.0)
        query_t = rows_at(float(t), x)
        query = like(path.alpha(query_t), x) * mean
        return State(x, query, query_t, state.index + 1, (y,), all_rows(x, True), draw=None, done=False)

    def _numbers(self, outer: int, dtype: torch.dtype) -> _Step:
        path = self.spec.interpolant
        t, to = self._grid(dtype)[outer : outer + 2].double()
        alpha, sigma, alpha_to, sigma_to = (
            float(part) for part in (path.alpha(t), path.sigma(t), path.alpha(to), path.sigma(to))
        )
        rho = self.spec.rho
        if rho is None:  # that of DDPM: x is x' with more noise
            rho = min(1.0, alpha * sigma_to / (sigma * alpha_to))
        gamma = rho * sigma_to / sigma
        return _Step(alpha, sigma, gamma, alpha_to - gamma * alpha, sigma_to * math.sqrt(1 - rho**2))

    def _grid(self, dtype: torch.dtype) -> Tensor:
        return spec_grid(self.spec, self.interval(), self.spec.steps, dtype)
