"""Stochastic samplers: Euler-Maruyama and stochastic Heun on dx = (v + w score) dt + sqrt(2 w) dW.

Ma et al. 2024, arXiv 2401.08740, equation 6 run from noise to data. Drift and score come from one evaluation of the
network. The last step, taken at t1 over the distance that is left, adds no noise (their appendix on sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sitsearch.models.diffusion import DIFFUSIONS, diffusion, noise_weight
from sitsearch.models.interpolants import like
from sitsearch.models.samplers.base import END, Spec, State, all_rows, check_running, rows_at, spec_grid

LAST_STEPS = (None, "Mean", "Tweedie", "Euler")


@dataclass(frozen=True)
class Stochastic:
    """Both methods; they differ in when a step's noise enters.

    Euler-Maruyama adds draw i at the end of step i: x' = x + h f(x, t) + sqrt(2 w h) z.
    Heun adds it before the first evaluation, then corrects: y = x + sqrt(2 w h) z, k1 = f(y, t),
    k2 = f(y + h k1, t + h), x' = y + h (k1 + k2) / 2. So it wants draw 0 at `init`, and draw i+1 where step i ends.

    Raises:
        ValueError: unknown diffusion form or last step; a single step that is the last one has nothing before it.
    """

    spec: Spec
    heun: bool

    def __post_init__(self) -> None:
        spec = self.spec
        if spec.diffusion not in DIFFUSIONS:
            raise ValueError(f"no diffusion form named {spec.diffusion!r}; there are {', '.join(DIFFUSIONS)}")
        if spec.last_step not in LAST_STEPS:
            raise ValueError(f"last_step must be one of {', '.join(map(str, LAST_STEPS))}, not {spec.last_step!r}")
        if self.grid_steps < 1 and spec.times is None:
            raise ValueError(f"an SDE with last step {spec.last_step} needs at least 2 steps, not {spec.steps}")
        self.interval()

    @property
    def noise_at_start(self) -> bool:
        """Heun's first evaluation lies at a noised x, unless its only step is the last one."""
        return self.heun and self.grid_steps > 0

    @property
    def grid_steps(self) -> int:
        """Steps that draw noise: all but the last step, if there is one."""
        return self.spec.steps - (self.spec.last_step is not None)

    @property
    def nfe(self) -> int:
        """Evaluations of one trajectory, exact."""
        return self.grid_steps * (2 if self.heun else 1) + (self.spec.last_step is not None)

    def interval(self) -> tuple[float, float]:
        """t0 and t1 of the noisy steps.

        An `END` is kept from t=0 on Linear and GVP by SBDM, whose coefficient is infinite there, and by predictions
        that say nothing about the data there; and from t=1, without a last step, by all but velocity on Linear and GVP.
        """
        spec = self.spec
        vp = spec.interpolant.name == "VP"
        singular = vp or spec.prediction != "velocity"
        t0 = END if not vp and (spec.diffusion == "SBDM" or singular) else 0.0
        if spec.last_step is None:
            return spec.within(t0, 1 - END if singular else 1.0)
        return spec.within(t0, 1 - self.last_size)

    @property
    def last_size(self) -> float:
        """Distance over which the last step goes, if there is one."""
        return self.spec.last_step_size if self.spec.times is None else self.spec.times[-1] - self.spec.times[-2]

    def init(self, x: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.init`."""
        return self._begin(x, 0, noise)

    def step(self, state: State, prediction: Tensor, noise: Tensor | None = None) -> State:
        """See `Sampler.step`."""
        check_running(state)
        if state.index == self.grid_steps:
            return self._finished(self._last_step(state, prediction), state.index + 1)
        slope = self._drift(state, prediction)
        grid = self._grid(state.x)
        t, to = grid[state.index], grid[state.index + 1]
        if not self.heun:
            return self._begin(self._noised(state.x, t, to, noise) + (to - t) * slope, state.index + 1, None)
        if not state.memory:  # first evaluation: predict
            draw = state.index + 1 if state.index + 1 < self.grid_steps else None
            query = state.query_x + (to - t) * slope
            memory = (state.query_x, slope)
            return State(state.x, query, rows_at(to, query), state.index, memory, state.active, draw=draw, done=False)
        noised, first = state.memory
        return self._begin(noised + 0.5 * (to - t) * (first + slope), state.index + 1, noise)

    def _grid(self, x: Tensor) -> Tensor:
        return spec_grid(self.spec, self.interval(), self.grid_steps, x.dtype)

    def _begin(self, x: Tensor, index: int, noise: Tensor | None) -> State:
        """The state before the first evaluation of step `index`; `noise` is Heun's draw for it."""
        if index == self.spec.steps:
            return self._finished(x, index)
        grid, noisy = self._grid(x), index < self.grid_steps
        query = self._noised(x, grid[index], grid[index + 1], noise) if self.heun and noisy else x
        draw = index if noisy and not self.heun else None
        return State(x, query, rows_at(grid[index], x), index, (), all_rows(x, True), draw=draw, done=False)

    def _finished(self, x: Tensor, index: int) -> State:
        t = rows_at(self._grid(x)[-1], x)
        return State(x, x, t, index, (), all_rows(x, False), draw=None, done=True)

    def _noised(self, x: Tensor, t: Tensor, to: Tensor, noise: Tensor | None) -> Tensor:
        if noise is None:
            raise ValueError("this step needs noise (see `State.draw`)")
        w = diffusion(self.spec.diffusion, self.spec.interpolant, t, self.spec.norm)
        return x + (2 * w * (to - t)).sqrt() * noise

    def _drift(self, state: State, prediction: Tensor) -> Tensor:
        """f = v + w score at the state's query; by the noise prediction where the score itself may be infinite."""
        spec, path, x, t = self.spec, self.spec.interpolant, state.query_x, state.query_t
        velocity = path.convert(prediction, x, t, spec.prediction, "velocity")
        if spec.prediction == "score":
            return velocity + diffusion(spec.diffusion, path, like(t, x), spec.norm) * prediction
        noise = path.convert(prediction, x, t, spec.prediction, "noise")
        return velocity - noise_weight(spec.diffusion, path, like(t, x), spec.norm) * noise

    def _last_step(self, state: State, prediction: Tensor) -> Tensor:
        spec, x, t = self.spec, state.query_x, state.query_t
        if spec.last_step == "Mean":
            return x + self.last_size * self._drift(state, prediction)
        if spec.last_step == "Tweedie":
            return spec.interpolant.convert(prediction, x, t, spec.prediction, "data")
        return x + self.last_size * spec.interpolant.convert(prediction, x, t, spec.prediction, "velocity")
