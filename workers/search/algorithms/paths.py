"""Search over paths: noise is put back into half-made images, and the most promising of what becomes of them go on.

Ma et al. 2025, arXiv 2501.09732, section 3.1 (Paths-N), in the paper's words and this code's time (t = 0 is noise, and
a noise level s is the time t = 1 - s):

1. N iid noises are integrated to the time t0;
2. each gets M copies, carried back by the forward process to the earlier time t0 - df:
   x' = (alpha(t') / alpha(t)) x + sqrt(sigma(t')^2 - (alpha(t') / alpha(t))^2 sigma(t)^2) eps;
3. each copy is integrated to t0 - df + db, where its data prediction is scored; the best N of all N M go on, t0 being
   that time from now on;
4. 2 and 3 are repeated until t = 1, where the copies are finished images.

As db > df, every round gains db - df: ceil((1 - t0) / (db - df)) rounds in all, the last one cut off at t = 1. The
options are noise levels, the paper's values on its linear path; they are taken for every path.

The scaling axis is M: a pass has as many copies as the budget buys, up to `branches`; what the budget has beyond that
goes to further passes. The N noises compete with nobody, yet are scored where they halt, as every candidate is: N NFE.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Op, Recipe, Renoise
from sitsearch.workers.search import base
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain

#: Times are rounded to so many digits, so that sums of options are the numbers that they look like.
DIGITS = 9
MAX_COPIES = 4096
MAX_ROUNDS = 1000


class PathsOptions(base.Options):
    """Options of search over paths; the noise levels are the paper's."""

    paths: int = Field(2, ge=1, le=256, description="N, paths that go on after a round")
    branches: int = Field(32, ge=1, le=1024, description="M, copies of each path, if the budget buys them")
    start: float = Field(0.11, ge=1e-3, lt=1, description="noise level, 1 - t0, of the first copies")
    delta_f: float = Field(0.78, gt=0, lt=1, description="df, noise level that is put in")
    delta_b: float = Field(0.81, gt=0, le=1, description="db, noise level that is taken out, above df")

    @model_validator(mode="after")
    def _gains(self) -> PathsOptions:
        if self.delta_b <= self.delta_f:
            raise ValueError(f"`delta_b` must be above `delta_f`, {self.delta_f}: else no round gains anything")
        if self.start + self.delta_f >= 1:
            raise ValueError("`start` and `delta_f` must come to less than 1: pure noise keeps nothing of a path")
        if self.start / (self.delta_b - self.delta_f) > MAX_ROUNDS:
            raise ValueError(f"`start` / (`delta_b` - `delta_f`) must be at most {MAX_ROUNDS}, the rounds of a pass")
        if self.paths * self.branches > MAX_COPIES:
            raise ValueError(f"`paths` x `branches` must be at most {MAX_COPIES}")
        return self


class PathsState(PassState):
    """A pass under way.

    Attributes:
        paths: the paths that go on, best first; empty between passes.
    """

    options: PathsOptions
    paths: tuple[Recipe, ...] = ()


class PathSearch:
    """Copies of N paths, made anew from partly noised states, the best N of which go on."""

    name: ClassVar[str] = "paths"
    title: ClassVar[str] = "Search over paths (Paths-N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = PathsOptions
    State: ClassVar[type[base.State]] = PathsState

    def chosen(self, allowance: base.Allowance, options: PathsOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: PathsOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: PathsOptions) -> PathsState:
        """The state before the first pass."""
        return PathsState(allowance=allowance, options=options)

    def ask(self, state: PathsState) -> tuple[base.Proposal, ...]:
        """Copies of the paths that go on, of each in turn; between passes, the first halt of new paths."""
        if not state.paths:
            return _starts(state) or state.plain()
        origins = islice(cycle(state.paths), _count(state))
        return tuple(
            state.propose(index, path.then(*_copy(state, path.time, index)), known=len(path.ops))
            for index, path in enumerate(origins)
        )

    def tell(
        self, state: PathsState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> PathsState:
        """Keep the best: as many as there were."""
        told = advance_pass(state, proposals, candidates)
        best = sorted(candidates, key=lambda candidate: -base.score_of(candidate))  # stable: the first of equals
        halted = tuple(candidate.recipe for candidate in best if not candidate.recipe.finished)
        return told.model_copy(update={"paths": halted[: len(state.paths) or None]})


def _starts(state: PathsState) -> tuple[base.Proposal, ...]:
    """The first halt of the next pass's paths, fewer where the budget is small; none if one with two copies is not
    paid for to the end.
    """
    options, t = state.options, round(1 - state.options.start, DIGITS)
    steps = state.sampling.steps_between(0.0, t)
    starts = tuple(
        state.propose(index, state.fresh(index).then(Integrate(to=t, steps=steps, round=state.round, index=index)))
        for index in range(options.paths)
    )
    branches, to_end = min(2, options.branches), _to_end(state, t)
    for paths in range(options.paths, 0, -1):
        copies = paths * branches
        if copies > 1 and paths * starts[0].nfe + copies * to_end <= state.room(copies):
            return starts[:paths]
    return ()


def _count(state: PathsState) -> int:
    """Copies of this round: as many as can go through all rounds to come, at most M of each path."""
    to_end = _to_end(state, state.paths[0].time)
    most = min(len(state.paths) * state.options.branches, state.left // to_end)
    return next(count for count in range(most, 0, -1) if count * to_end <= state.room(count))


def _to_end(state: PathsState, t: float) -> int:
    """NFE of one copy of a path at time `t`, in this round and in each that follows."""
    total = 0
    while t < 1:
        copy = Recipe(seed=0, round=0, index=0).then(*_copy(state, t, 0))
        total, t = total + state.sampling.cost(copy), copy.time
    return total


def _copy(state: PathsState, t: float, index: int) -> tuple[Op, Op]:
    """What makes copy `index` of a path at time `t`: back by df, then on by db."""
    back = round(t - state.options.delta_f, DIGITS)
    to = min(1.0, round(back + state.options.delta_b, DIGITS))
    steps = state.sampling.steps_between(back, to)
    return (
        Renoise(to=back, round=state.round, index=index),
        Integrate(to=to, steps=steps, round=state.round, index=index),
    )
