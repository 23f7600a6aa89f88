"""Samplers as state machines: `init` gives the first query, `step` takes its answer and gives the next.

    state = sampler.init(noise)
    while not state.done:
        state = sampler.step(state, field(state.query_x, state.query_t))
    image = state.x

The rows of a state move in lockstep; whoever evaluates the field may batch the queries of many states.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """Where a batch of trajectories stands.

    Attributes:
        x: `[B, ...]`, the solution at grid point `index`.
        query_x: `[B, ...]`, where the field is wanted next.
        query_t: `[B]`, the time of that query.
        index: steps taken so far.
        slopes: the evaluations of the step under way.
        done: `x` is the final state, and nothing is queried any more.
    """

    x: Tensor
    query_x: Tensor
    query_t: Tensor
    index: int
    slopes: tuple[Tensor, ...]
    done: bool


class Sampler(Protocol):
    """A sampling method with its time grid."""

    @property
    def nfe(self) -> int:
        """Evaluations of a whole trajectory."""

    def init(self, x: Tensor) -> State:
        """The state of a batch `[B, ...]` of noises before the first evaluation."""

    def step(self, state: State, prediction: Tensor, noise: Tensor | None = None) -> State:
        """The state after the field at the state's query was found to be `prediction [B, ...]`."""


@dataclass(frozen=True)
class RungeKutta:
    """An explicit Runge-Kutta method on a uniform grid of [0, 1].

    Attributes:
        nodes: c_i, where in the step the i-th evaluation lies.
        matrix: a_ij, how the i-th query is built of earlier slopes.
        weights: b_i of the step.
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    steps: int

    @property
    def nfe(self) -> int:
        """Evaluations of a whole trajectory."""
        return self.steps * len(self.nodes)

    def init(self, x: Tensor) -> State:
        """See `Sampler.init`."""
        return self._query(x, 0, ())

    def step(self, state: State, prediction: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.step`; an ODE method uses no noise."""
        slopes = (*state.slopes, prediction)
        if len(slopes) < len(self.nodes):
            return self._query(state.x, state.index, slopes)
        h = 1.0 / self.steps
        x = state.x + h * sum(b * k for b, k in zip(self.weights, slopes, strict=True) if b)
        return self._query(x, state.index + 1, ())

    def _query(self, x: Tensor, index: int, slopes: tuple[Tensor, ...]) -> State:
        done = index == self.steps
        stage = len(slopes)
        h = 1.0 / self.steps
        row = self.matrix[stage]
        query = x + h * sum(a * k for a, k in zip(row, slopes, strict=True) if a) if slopes else x
        t = torch.full((len(x),), 1.0 if done else (index + self.nodes[stage]) * h, dtype=torch.float32)
        return State(x, query, t, index, slopes, done)


#: Butcher tableaux: nodes, matrix, weights.
_TABLEAUX: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": ((0.0,), ((),), (1.0,)),
    "heun": ((0.0, 1.0), ((), (1.0,)), (0.5, 0.5)),
}
SAMPLERS = dict.fromkeys(_TABLEAUX)


def evaluations_per_step(method: str) -> int:
    """Field evaluations of one step.

    Raises:
        ValueError: no such method.
    """
    if method not in _TABLEAUX:
        raise ValueError(f"no sampler named {method!r}; there are {', '.join(_TABLEAUX)}")
    return len(_TABLEAUX[method][0])


def make_sampler(method: str, *, steps: int, interpolant: str = "Linear", prediction: str = "velocity") -> Sampler:
    """The sampler `method` with `steps` steps."""
    evaluations_per_step(method)
    nodes, matrix, weights = _TABLEAUX[method]
    return RungeKutta(nodes, matrix, weights, steps)
