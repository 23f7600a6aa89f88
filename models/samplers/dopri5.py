"""Dormand-Prince 5(4) with a step size for every trajectory (Hairer, Norsett and Wanner, Solving ODEs I, II.4-II.5)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sitsearch.models.interpolants import like
from sitsearch.models.samplers.base import Spec, State, check_running
from sitsearch.models.samplers.runge_kutta import weighted

NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
MATRIX = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
#: Fifth-order minus fourth-order weights.
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
STAGES = 6  # new evaluations of an attempt; the seventh slope is the next step's first
SAFETY, GROW, SHRINK = 0.9, 10.0, 0.2


@dataclass(frozen=True)
class AdaptiveState(State):
    """Rows share the stage but not the time.

    Attributes:
        t: `[B]` float64 on the CPU, time of `x`.
        h: `[B]` float64 on the CPU, size of the step being attempted; 0 in finished rows.
        starting: the first two evaluations, which choose the first step size, are under way.
    """

    t: Tensor
    h: Tensor
    starting: bool


@dataclass(frozen=True)
class Dopri5:
    """Steps are accepted and resized row by row, with plain floats, so a row's result does not depend on its batch.

    At most `spec.steps` attempts are made. So that the end is always reached, an attempt spans at least an equal share
    of what remains, and one that the share made longer than the tolerance wants is accepted as it is: with enough
    attempts that never happens.
    """

    spec: Spec
    noise_at_start: bool = False

    @property
    def nfe(self) -> int:
        """Upper bound of one trajectory's evaluations; `State.active` tells the true number."""
        return 2 + STAGES * self.spec.steps

    def init(self, x: Tensor, noise: Tensor | None = None) -> AdaptiveState:
        """See `Sampler.init`; uses no noise."""
        t = torch.full((len(x),), self.spec.ode_interval()[0], dtype=torch.float64)
        return self._state(x, x, t, torch.zeros_like(t), t, 0, (), starting=True)

    def step(self, state: AdaptiveState, prediction: Tensor, noise: Tensor | None = None) -> AdaptiveState:
        """See `Sampler.step`; uses no noise."""
        check_running(state)
        slope = self.spec.interpolant.convert(
            prediction, state.query_x, state.query_t, self.spec.prediction, "velocity"
        )
        slopes = (*state.memory, slope)
        if not state.starting:
            return self._stage(state, slopes) if len(slopes) <= STAGES else self._judge(state, slopes)
        if len(slopes) == 1:
            guesses = [self._first_guess(x, k) for x, k in zip(state.x, slope, strict=True)]
            h = torch.tensor(guesses, dtype=torch.float64)
            query = state.x + _times(h, slope)
            return self._state(state.x, query, state.t, h, state.t + h, 0, slopes, starting=True)
        rows = zip(state.x, *slopes, state.h.tolist(), strict=True)
        h = torch.tensor([self._first_step(x, k1, k2, guess) for x, k1, k2, guess in rows], dtype=torch.float64)
        return self._attempt(state.x, state.t, h, 0, slopes[0])

    # --- one attempt ---------------------------------------------------------------------------------------------

    def _attempt(self, x: Tensor, t: Tensor, wanted: Tensor, index: int, first_slope: Tensor) -> AdaptiveState:
        """Begin attempt `index`, whose first slope is known."""
        left = self.spec.ode_interval()[1] - t
        h = torch.minimum(torch.maximum(wanted, self._share(t, index)), left)
        state = self._state(x, x, t, h, t, index, (first_slope,), starting=False)
        return state if state.done else self._stage(state, state.memory)

    def _share(self, t: Tensor, index: int) -> Tensor:
        """`[B]`, the shortest step of attempt `index`."""
        return (self.spec.ode_interval()[1] - t) / max(1, self.spec.steps - index)

    def _stage(self, state: AdaptiveState, slopes: tuple[Tensor, ...]) -> AdaptiveState:
        stage = len(slopes)
        query = state.x + _times(state.h, weighted(MATRIX[stage], slopes))
        query_t = state.t + NODES[stage] * state.h
        return self._state(state.x, query, state.t, state.h, query_t, state.index, slopes, starting=False)

    def _judge(self, state: AdaptiveState, slopes: tuple[Tensor, ...]) -> AdaptiveState:
        """Accept or reject every row's step by its own error, and choose its next size."""
        end = self.spec.ode_interval()[1]
        error = _times(state.h, weighted(ERROR, slopes))
        share = self._share(state.t, state.index)
        accepted, t, wanted = [], [], []
        for row, running in enumerate(state.active.tolist()):
            begin, h = float(state.t[row]), float(state.h[row])
            ratio = self._ratio(error[row], state.x[row], state.query_x[row]) if running else 0.0
            accept = running and (ratio <= 1 or h <= float(share[row]))
            accepted.append(accept)
            reached = h >= end - begin  # the step was cut to end there: set the time rather than round it
            t.append(begin if not accept else end if reached else begin + h)
            wanted.append(h * _factor(ratio))
        mask = torch.tensor(accepted, device=state.x.device)
        # The sixth query is the fifth-order solution itself (first same as last).
        x = torch.where(like(mask, state.x), state.query_x, state.x)
        first_slope = torch.where(like(mask, state.x), slopes[-1], slopes[0])
        times, sizes = torch.tensor(t, dtype=torch.float64), torch.tensor(wanted, dtype=torch.float64)
        return self._attempt(x, times, sizes, state.index + 1, first_slope)

    def _state(
        self,
        x: Tensor,
        query_x: Tensor,
        t: Tensor,
        h: Tensor,
        query_t: Tensor,
        index: int,
        memory: tuple[Tensor, ...],
        *,
        starting: bool,
    ) -> AdaptiveState:
        active = t < self.spec.ode_interval()[1]
        return AdaptiveState(
            x=x,
            query_x=query_x,
            query_t=query_t.to(x.device, x.dtype),
            index=index,
            memory=memory,
            active=active.to(x.device),
            draw=None,
            done=not bool(active.any()),
            t=t,
            h=h,
            starting=starting,
        )

    # --- step sizes of one row -----------------------------------------------------------------------------------

    def _ratio(self, error: Tensor, x: Tensor, y: Tensor) -> float:
        """Root mean square of error / (atol + rtol max(|x|, |y|)); at most 1 is within the tolerance."""
        scale = self.spec.atol + self.spec.rtol * torch.maximum(x.abs(), y.abs())
        return _rms(error / scale)

    def _first_guess(self, x: Tensor, slope: Tensor) -> float:
        """An Euler step that moves x by a hundredth of its size (II.4, steps a and b)."""
        scale = self.spec.atol + self.spec.rtol * x.abs()
        size, speed = _rms(x / scale), _rms(slope / scale)
        t0, t1 = self.spec.ode_interval()
        guess = 1e-6 if min(size, speed) < 1e-5 else 0.01 * size / speed
        return min(guess, t1 - t0) if guess > 0 and math.isfinite(guess) else 1e-6

    def _first_step(self, x: Tensor, slope: Tensor, ahead: Tensor, guess: float) -> float:
        """The step whose error the curvature between the two slopes predicts to be 0.01 (II.4, steps d to f)."""
        scale = self.spec.atol + self.spec.rtol * x.abs()
        steepest = max(_rms(slope / scale), _rms((ahead - slope) / scale) / guess)
        estimate = max(1e-6, guess * 1e-3) if steepest <= 1e-15 else (0.01 / steepest) ** (1 / 5)
        return min(100 * guess, estimate) if math.isfinite(estimate) else guess


def _times(h: Tensor, x: Tensor) -> Tensor:
    """`h [B]` times `x [B, ...]`, in x's dtype."""
    return like(h.to(x.device, x.dtype), x) * x


def _rms(x: Tensor) -> float:
    return math.sqrt(float(x.double().square().mean()))


def _factor(ratio: float) -> float:
    """By how much the next step is longer, for a method of order 5; not shorter after an accepted step."""
    if not math.isfinite(ratio):
        return SHRINK
    if ratio == 0:
        return GROW
    return min(GROW, max(SAFETY * ratio ** (-1 / 5), 1.0 if ratio < 1 else SHRINK))
