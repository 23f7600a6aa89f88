"""Explicit Runge-Kutta methods of fixed step on the probability-flow ODE dx/dt = v(x, t)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sitsearch.models.samplers.base import Spec, State, all_rows, check_running, rows_at, spec_grid


@dataclass(frozen=True)
class Tableau:
    """Butcher's: k_i = v(x + h sum_j a_ij k_j, t + c_i h) and x' = x + h sum_i b_i k_i.

    Attributes:
        nodes: c_i, where in the step the i-th evaluation lies.
        matrix: a_ij for j < i.
        weights: b_i.
        order: of convergence.
    """

    nodes: tuple[float, ...]
    matrix: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    order: int


EULER = Tableau((0.0,), ((),), (1.0,), order=1)
MIDPOINT = Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0), order=2)
HEUN = Tableau((0.0, 1.0), ((), (1.0,)), (0.5, 0.5), order=2)
HEUN3 = Tableau((0.0, 1 / 3, 2 / 3), ((), (1 / 3,), (0.0, 2 / 3)), (0.25, 0.0, 0.75), order=3)
#: Kutta's 3/8 rule, which torchdiffeq calls rk4 and the reference therefore samples with.
RK4 = Tableau(
    (0.0, 1 / 3, 2 / 3, 1.0),
    ((), (1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
    (0.125, 0.375, 0.375, 0.125),
    order=4,
)


def weighted(coefficients: tuple[float, ...], slopes: tuple[Tensor, ...]) -> Tensor:
    """sum_i c_i k_i over the non-zero coefficients, of which there is at least one."""
    terms = [c * k for c, k in zip(coefficients, slopes, strict=True) if c]
    return sum(terms[1:], start=terms[0])


@dataclass(frozen=True)
class RungeKutta:
    """A tableau on a time grid. `state.memory` holds the slopes of the step under way."""

    tableau: Tableau
    spec: Spec
    noise_at_start: bool = False

    @property
    def nfe(self) -> int:
        """Evaluations of one trajectory, exact."""
        return self.spec.steps * len(self.tableau.nodes)

    def init(self, x: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.init`; uses no noise."""
        return self._query(x, 0, ())

    def step(self, state: State, prediction: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.step`; uses no noise."""
        check_running(state)
        slope = self.spec.interpolant.convert(
            prediction, state.query_x, state.query_t, self.spec.prediction, "velocity"
        )
        slopes = (*state.memory, slope)
        if len(slopes) < len(self.tableau.nodes):
            return self._query(state.x, state.index, slopes)
        grid = self._grid(state.x)
        h = grid[state.index + 1] - grid[state.index]
        return self._query(state.x + h * weighted(self.tableau.weights, slopes), state.index + 1, ())

    def _grid(self, x: Tensor) -> Tensor:
        return spec_grid(self.spec, self.spec.ode_interval(), self.spec.steps, x.dtype)

    def _query(self, x: Tensor, index: int, slopes: tuple[Tensor, ...]) -> State:
        grid = self._grid(x)
        if index == self.spec.steps:
            return State(x, x, rows_at(grid[index], x), index, (), all_rows(x, False), draw=None, done=True)
        h = grid[index + 1] - grid[index]
        stage = len(slopes)
        query = x + h * weighted(self.tableau.matrix[stage], slopes) if stage else x
        # A node at 1 is the next grid point itself: t + h may round to beyond it.
        t = grid[index + 1] if self.tableau.nodes[stage] == 1 else grid[index] + self.tableau.nodes[stage] * h
        return State(x, query, rows_at(t, x), index, slopes, all_rows(x, True), draw=None, done=False)
