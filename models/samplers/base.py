"""The protocol of samplers: a state that asks one question of the field at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from sitsearch.models.interpolants import PREDICTIONS, Interpolant, Linear, interpolant_named

#: Distance kept from an end point at which a prediction or a coefficient is singular (the reference's sample_eps).
END = 1e-3

S = TypeVar("S", bound="State")


@dataclass(frozen=True)
class State:
    """Where a batch of trajectories stands; they move in lockstep, step by step and stage by stage.

    Attributes:
        x: `[B, ...]`, the solution after `index` steps.
        query_x: `[B, ...]`, where the field is wanted next.
        query_t: `[B]`, the times of these queries, in x's dtype.
        index: steps taken (attempted, if the step size is adaptive).
        memory: tensors `[B, ...]` of the step under way, such as slopes.
        active: `[B]` bool, rows that still need the field. A row has taken as many evaluations as there were states in
            which it was active; the others may be handed any numbers, which are ignored.
        draw: number of the noise draw that the next `step` wants, or None when it wants none.
        done: `x` is final in every row, and nothing is queried any more.
    """

    x: Tensor
    query_x: Tensor
    query_t: Tensor
    index: int
    memory: tuple[Tensor, ...]
    active: Tensor
    draw: int | None
    done: bool

    def select(self: S, rows: Tensor) -> S:
        """The state of some rows: `rows` is a tensor of indices or a mask `[B]`; repeated indices copy a trajectory."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().squeeze(1)

        def pick(value: Any) -> Any:
            if isinstance(value, Tensor):
                return value[rows.to(value.device)]
            return tuple(map(pick, value)) if isinstance(value, tuple) else value

        picked = replace(self, **{f.name: pick(getattr(self, f.name)) for f in fields(self)})
        return replace(picked, done=not bool(picked.active.any()))


def concat(states: Sequence[S]) -> S:
    """One state of all rows of several states of the same sampler, in order.

    Raises:
        ValueError: there is none, or they do not stand at the same stage of the same step.
    """
    if not states:
        raise ValueError("needs at least one state")
    first = states[0]
    for other in states[1:]:
        if (other.index, len(other.memory), other.draw) != (first.index, len(first.memory), first.draw):
            raise ValueError(
                f"cannot join a state at step {other.index}, stage {len(other.memory)} "
                f"to one at step {first.index}, stage {len(first.memory)}"
            )

    def join(values: tuple[Any, ...]) -> Any:
        if isinstance(values[0], Tensor):
            return torch.cat(values)
        return tuple(join(parts) for parts in zip(*values, strict=True)) if isinstance(values[0], tuple) else values[0]

    joined = replace(first, **{f.name: join(tuple(getattr(s, f.name) for s in states)) for f in fields(first)})
    return replace(joined, done=all(s.done for s in states))


class Sampler(Protocol):
    """A sampling method on its time grid. Immutable; all that changes is in the state."""

    @property
    def nfe(self) -> int:
        """Evaluations of one trajectory: exact, except that an adaptive method may take fewer."""

    @property
    def noise_at_start(self) -> bool:
        """`init` wants draw 0 (of N(0, 1) noise)."""

    def init(self, x: Tensor, noise: Tensor | None = None) -> Any:
        """The state of trajectories that stand at `x [B, ...]` at time t0, before the first evaluation.

        Raises:
            ValueError: a needed noise is missing.
        """

    def step(self, state: Any, prediction: Tensor, noise: Tensor | None = None) -> Any:
        """The next state, given what the network predicts at the state's query.

        Args:
            state: a state of this sampler that is not done.
            prediction: `[B, ...]`, the network's (guided) prediction at `(query_x, query_t)`.
            noise: `[B, ...]`, N(0, 1); wanted when `state.draw` is a number, ignored otherwise.

        Raises:
            ValueError: the state is done, or a needed noise is missing.
        """


@dataclass(frozen=True)
class Spec:
    """All that defines a sampler but its method; each method reads what concerns it.

    Attributes:
        steps: steps from t0 to t1; the last step of an SDE (unless None) is one of them. An adaptive method attempts
            this many at most.
        interpolant: the path that the network was trained on.
        prediction: what the network predicts: `velocity`, `score`, `noise` or `data`.
        shift: 1 is a uniform grid; above 1 puts more of the steps near the noise (see `time_grid`).
        times: the grid itself, `steps + 1` ascending times in [0, 1]; then `shift`, `t0`, `t1` and `last_step_size` are
            not looked at. Of its ends, 0 and 1 are moved to where the prediction is regular.
        t0, t1: where to begin and end, in [0, 1]; None is the widest interval on which the prediction is regular.
        diffusion, norm: form and factor of the SDE's diffusion coefficient (models/diffusion.py).
        last_step: how an SDE ends: `Mean` (drift only), `Tweedie` (the data prediction), `Euler` (along the ODE), or
            None.
        last_step_size: distance from 1 at which the last step begins, in (0, 1).
        rtol, atol: tolerances of an adaptive method.
        inner, rho: of GLASS: evaluations of a step, and the correlation of the noises before and after it, in [-1, 1];
            None is DDPM's.

    Raises:
        ValueError: a value is out of its range.
    """

    steps: int
    interpolant: Interpolant = Linear()  # noqa: RUF009  (immutable)
    prediction: str = "velocity"
    shift: float = 1.0
    t0: float | None = None
    t1: float | None = None
    diffusion: str = "sigma"
    norm: float = 1.0
    last_step: str | None = "Mean"
    last_step_size: float = 0.04
    rtol: float = 1e-3
    atol: float = 1e-6
    times: tuple[float, ...] | None = None
    inner: int = 1
    rho: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {self.prediction!r}")
        if not self.shift > 0:
            raise ValueError(f"shift must be positive, not {self.shift}")
        if not self.norm >= 0:
            raise ValueError(f"norm must be at least 0, not {self.norm}")
        if not 0 < self.last_step_size < 1:
            raise ValueError(f"last_step_size must be in (0, 1), not {self.last_step_size}")
        if self.times is not None:
            ascending = all(a < b for a, b in zip(self.times, self.times[1:], strict=False))
            if len(self.times) != self.steps + 1 or not ascending or not 0 <= self.times[0] < self.times[-1] <= 1:
                raise ValueError(f"times must be {self.steps + 1} ascending ones in [0, 1], not {self.times}")
        if not (self.rtol >= 0 and self.atol > 0):
            raise ValueError(f"rtol must be at least 0 and atol positive, not {self.rtol} and {self.atol}")

    @classmethod
    def of(cls, *, interpolant: Interpolant | str = "Linear", **options: Any) -> Spec:
        """A spec; the interpolant may be given by name."""
        if isinstance(interpolant, str):
            interpolant = interpolant_named(interpolant)
        return cls(interpolant=interpolant, **options)

    def within(self, t0: float, t1: float) -> tuple[float, float]:
        """The interval to sample over: the spec's own ends where given, else these.

        Raises:
            ValueError: it is empty or not within [0, 1].
        """
        if self.times is not None:
            return max(t0, self.times[0]), min(t1, self.times[-1])
        low, high = t0 if self.t0 is None else self.t0, t1 if self.t1 is None else self.t1
        if not 0 <= low < high <= 1:
            raise ValueError(f"needs 0 <= t0 < t1 <= 1, not t0={low} and t1={high}")
        return low, high

    def ode_interval(self) -> tuple[float, float]:
        """[0, 1] for velocity on Linear and GVP; an `END` is kept from t=1 on VP, and from both ends otherwise."""
        if self.interpolant.name == "VP":
            return self.within(0.0, 1 - END)
        return self.within(0.0, 1.0) if self.prediction == "velocity" else self.within(END, 1 - END)


def spec_grid(spec: Spec, interval: tuple[float, float], steps: int, dtype: torch.dtype) -> Tensor:
    """`[steps + 1]` times on the CPU: the spec's own first ones within the interval, or else those of `time_grid`."""
    if spec.times is None:
        return time_grid(*interval, steps, spec.shift, dtype)
    return _own_grid(spec.times[: steps + 1], *interval, dtype)


@lru_cache(maxsize=256)
def _own_grid(times: tuple[float, ...], t0: float, t1: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor([min(max(t, t0), t1) for t in times], dtype=dtype)


@lru_cache(maxsize=256)
def time_grid(t0: float, t1: float, steps: int, shift: float, dtype: torch.dtype) -> Tensor:
    """`[steps + 1]` times from t0 to t1 on the CPU.

    A shift s maps the noise level u = 1 - t of a uniform grid to s u / (1 + (s - 1) u): the resolution-dependent shift
    of SD3 and Flux (Esser et al. 2024, arXiv 2403.03206, equation 23). The grid is the image of the uniform one between
    the places where t0 and t1 come from, so that a trajectory may be cut at any of its times; both ends stay.
    """
    if shift == 1:
        return torch.linspace(t0, t1, steps + 1, dtype=dtype)
    ends = [(1 - t) / (shift - (shift - 1) * (1 - t)) for t in (t0, t1)]
    level = torch.linspace(ends[0], ends[1], steps + 1, dtype=torch.float64)
    shifted = (1 - shift * level / (1 + (shift - 1) * level)).to(dtype)
    shifted[0], shifted[-1] = t0, t1
    return shifted


def rows_at(t: Tensor | float, x: Tensor) -> Tensor:
    """The time `t` for every row of `x`: `[B]` on x's device and in its dtype."""
    return torch.full((len(x),), float(t), dtype=x.dtype, device=x.device)


def all_rows(x: Tensor, value: bool) -> Tensor:
    """`[B]` bool, the same for every row."""
    return torch.full((len(x),), value, device=x.device)


def check_running(state: State) -> None:
    """Refuse to step a finished state.

    Raises:
        ValueError: the state is done.
    """
    if state.done:
        raise ValueError(f"the trajectory is done after step {state.index}; there is nothing to step")
