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

The paper's copies win at the end alone, yet a data prediction at t = 0.92 is nearly an image. With every round of
copies the `finish` most promising trajectories that halted so far in the pass, starts or copies of any round, are
therefore integrated to the end, as candidates. As they halted at different times, they are compared by a quantile of
the final score that the score of D at that time predicts (see `workers/search/calibration.py`, which learns from those
that were finished); but for the best one, those whose quantile is below the best image so far are left. A trajectory
that goes on as a path is another candidate once it is finished: its copies are made from where it halted.

For what it is worse: on prompts of attributes (docs/study) it is level with random search at 480 NFE and below it at
1,920, by 0.09 of CLIPScore (95% interval 0.01 to 0.17). At the paper's noise levels a copy goes back to t = 0.11, where
little is left of its path, so that a pass chooses among nearly fresh trajectories and takes the NFE of three for each;
less noise did worse still.

The scaling axis is M. Unless `branches` names it, the budget goes to equal passes of at most `MOST` copies a round, the
paper's 2 x 32, and N grows with them to the paper's 2. The N noises compete with nobody, yet are scored where they
halt, as every candidate is: N NFE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Op, Recipe, Renoise
from sitsearch.workers.search import base
from sitsearch.workers.search.calibration import GLYPHS, CalibratedState, Calibration, Prior, check_ascending
from sitsearch.workers.search.passes import advance_pass, least_plain

#: Times are rounded to so many digits, so that sums of options are the numbers that they look like.
DIGITS = 9
MAX_COPIES = 4096
#: N, M and copies of a round, at most, where the options do not name them.
PATHS, BRANCHES = 2, 32
MOST = PATHS * BRANCHES
MAX_ROUNDS = 1000


class PathsOptions(base.Options):
    """Options of search over paths; the noise levels are the paper's."""

    paths: int | None = Field(
        None,
        ge=1,
        le=256,
        description=f"N, paths that go on after a round; none: what the budget buys, at most {PATHS}",
    )
    branches: int | None = Field(
        None, ge=1, le=1024, description=f"M, copies of each path; none: what the budget buys, at most {MOST} a round"
    )
    finish: int | None = Field(
        4,
        ge=0,
        le=MAX_COPIES,
        description="halted trajectories that are finished with a round; none: as many as copies",
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the predicted final score, by which those are chosen; none: 1 - 1 / (n + 1) after n draws",
    )
    start: float = Field(0.11, ge=1e-3, lt=1, description="noise level, 1 - t0, of the first copies")
    delta_f: float = Field(0.78, gt=0, lt=1, description="df, noise level that is put in")
    delta_b: float = Field(0.81, gt=0, le=1, description="db, noise level that is taken out, above df")
    prior: tuple[Prior, ...] = Field(
        GLYPHS,
        min_length=1,
        max_length=100,
        description="what scores at times t are worth before any was seen: correlations with the final score, or the "
        "calibration of another search",
    )

    @model_validator(mode="after")
    def _gains(self) -> PathsOptions:
        if self.delta_b <= self.delta_f:
            raise ValueError(f"`delta_b` must be above `delta_f`, {self.delta_f}: else no round gains anything")
        if self.start + self.delta_f >= 1:
            raise ValueError("`start` and `delta_f` must come to less than 1: pure noise keeps nothing of a path")
        if self.start / (self.delta_b - self.delta_f) > MAX_ROUNDS:
            raise ValueError(f"`start` / (`delta_b` - `delta_f`) must be at most {MAX_ROUNDS}, the rounds of a pass")
        if (self.paths or PATHS) * (self.branches or BRANCHES) > MAX_COPIES:
            raise ValueError(f"`paths` x `branches` must be at most {MAX_COPIES}")
        check_ascending(self.prior)
        return self


class Shape(Schema):
    """How large a pass is.

    Attributes:
        paths, copies, finish: N, copies of a round, and trajectories finished with it.
        aside: NFE that are left to the passes after it.
    """

    paths: int
    copies: int
    finish: int
    aside: int


class PathsState(CalibratedState):
    """A pass under way.

    Attributes:
        paths: the paths that go on, best first; empty between passes.
        halted: trajectories of this pass that were not finished, the most promising of them.
        shape: of the pass; None between passes.
    """

    options: PathsOptions
    paths: tuple[Recipe, ...] = ()
    halted: tuple[base.Scored, ...] = ()
    shape: Shape | None = None


class PathSearch:
    """Copies of N paths, made anew from partly noised states, the best N of which go on."""

    name: ClassVar[str] = "paths"
    title: ClassVar[str] = "Search over paths (Paths-N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = False  # what it takes to finish a trajectory depends on where it halted
    paper: ClassVar[Mapping[str, Any]] = {
        "paths": PATHS,
        "branches": BRANCHES,
        "finish": 0,
        "start": 0.11,
        "delta_f": 0.78,
        "delta_b": 0.81,
    }
    Options: ClassVar[type[base.Options]] = PathsOptions
    State: ClassVar[type[base.State]] = PathsState

    def chosen(self, allowance: base.Allowance, options: PathsOptions) -> Mapping[str, Any]:
        """`paths`, `branches` and `finish`; all 0 where the budget buys plain trajectories alone."""
        shape = _shape(self.init(allowance, options)) or Shape(paths=0, copies=0, finish=0, aside=0)
        found = {
            "paths": shape.paths,
            "branches": math.ceil(shape.copies / max(1, shape.paths)),
            "finish": shape.finish,
        }
        return {name: value for name, value in found.items() if getattr(options, name) is None}

    def least(self, allowance: base.Allowance, options: PathsOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: PathsOptions) -> PathsState:
        """The state before the first pass."""
        return PathsState(allowance=allowance, options=options, known=Calibration(prior=options.prior))

    def ask(self, state: PathsState) -> tuple[base.Proposal, ...]:
        """Copies of the paths that go on, of each in turn, and the end of some that halted; between passes, the first
        halt of new paths.
        """
        if state.shape is None:
            shape = _shape(state)
            return state.plain() if shape is None else _starts(state, shape.paths)
        origins = list(islice(cycle(state.paths), _count(state, state.shape)))
        copies = [
            state.propose(index, path.then(*_copy(state, path.time, index)), known=len(path.ops))
            for index, path in enumerate(origins)
        ]
        return (*copies, *(_end(state, index, path) for index, path in enumerate(_promising(state), len(copies))))

    def tell(
        self, state: PathsState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> PathsState:
        """Keep the best of the copies, as many as there were; learn from what was finished."""
        told = advance_pass(state, proposals, candidates, best=state.with_finished(candidates))
        ended = {p.recipe.prefix(p.known): c for p, c in zip(proposals, candidates, strict=True) if p.evaluated}
        drawn = [c for p, c in zip(proposals, candidates, strict=True) if not p.evaluated]
        known = state.known
        for halt in state.halted:
            if halt.recipe in ended:
                known = known.learn(halt.recipe.time, [(halt.score, base.score_of(ended[halt.recipe]))])
        told = told.model_copy(update={"drawn": state.drawn + len(drawn)})
        if drawn[0].recipe.finished:
            return told.model_copy(update={"known": known, "paths": (), "halted": (), "shape": None})
        halts = [base.scored(c) for c in drawn]
        told = told.model_copy(
            update={
                "known": known.see(drawn[0].recipe.time, (halt.score for halt in halts)),
                "halted": (*(halt for halt in state.halted if halt.recipe not in ended), *halts),
                "shape": state.shape or _shape(state),
            }
        )
        halts.sort(key=lambda halt: -halt.score)  # stable: the first of equals
        paths = tuple(halt.recipe for halt in halts[: len(state.paths) or None])
        return told.model_copy(update={"paths": paths, "halted": _ranked(told)[:MAX_COPIES]})


def _starts(state: PathsState, count: int) -> tuple[base.Proposal, ...]:
    """The first halt of a pass's paths."""
    t = _first_halt(state)
    steps = state.sampling.steps_between(0.0, t)
    return tuple(
        state.propose(
            index, state.fresh(index).then(state.sampling.integrate(t, steps, round=state.round, index=index))
        )
        for index in range(count)
    )


def _end(state: PathsState, index: int, halted: Recipe) -> base.Proposal:
    """The end of a halted trajectory."""
    end = state.sampling.to_end(halted.time, round=state.round, index=index)
    return state.propose(index, halted.then(end), known=len(halted.ops), evaluated=True)


def _ranked(state: PathsState) -> tuple[base.Scored, ...]:
    """The halted trajectories, by the quantile of the final score that is predicted of them."""
    fits = {t: state.known.at(t) for t in {halt.recipe.time for halt in state.halted}}
    quantile = state.judging(state.options.quantile)
    judged = [(fits[halt.recipe.time].quantile(halt.score, quantile), halt) for halt in state.halted]
    return tuple(halt for _, halt in sorted(judged, key=lambda pair: -pair[0]))  # stable: the first of equals


def _promising(state: PathsState) -> tuple[Recipe, ...]:
    """The halted trajectories that are finished with this round: the best, and others that may beat the best image."""
    bar, quantile = state.incumbent, state.judging(state.options.quantile)
    ranked = _ranked(state)[: state.shape.finish if state.shape else 0]
    return tuple(
        halt.recipe
        for place, halt in enumerate(ranked)
        if place == 0 or bar is None or state.known.at(halt.recipe.time).quantile(halt.score, quantile) >= bar
    )


def _shape(state: PathsState) -> Shape | None:
    """The next pass: paths and copies as the budget buys them; None if one path with two copies is not paid for."""
    options, t = state.options, _first_halt(state)
    to_end, start = _to_end(state, t), _starts(state, 1)[0].nfe
    least = min(2, options.branches or 2)

    def shaped(copies: int, finish: int) -> tuple[int, int]:
        paths = min(options.paths or _paths(copies, options.branches), copies // least)
        return paths, paths * start + copies * to_end + finish * _ends(state, t)

    most = _most(options)
    passes = 1 if options.branches else 1 + state.left // shaped(most + 1, _finish(options, most + 1))[1]
    for with_ends in (True, False):
        for copies in range(min(most, state.left // to_end), 1, -1):
            finish = _finish(options, copies) if with_ends else 0
            paths, nfe = shaped(copies, finish)
            if paths and nfe <= min(state.left // passes, state.room(copies)):
                return Shape(paths=paths, copies=copies, finish=finish, aside=state.left - state.left // passes)
    return None


def _finish(options: PathsOptions, copies: int) -> int:
    """Trajectories that are finished with a round of so many copies."""
    return copies if options.finish is None else options.finish


def _most(options: PathsOptions) -> int:
    """Copies of a round, at most."""
    return (options.paths or PATHS) * (options.branches or BRANCHES)


def _paths(copies: int, branches: int | None) -> int:
    """N for so many copies of a round, at most `PATHS`.

    With M open in the paper's proportion, M = 16 N; with M named, as many as have M copies each.
    """
    wanted = round(math.sqrt(copies / (BRANCHES // PATHS))) if branches is None else copies // branches
    return max(1, min(PATHS, wanted))


def _count(state: PathsState, shape: Shape) -> int:
    """Copies of this round: as many as can go through all rounds to come, at most M of each path."""
    t = state.paths[0].time
    to_end, ends = _to_end(state, t), shape.finish * _ends(state, t)
    most = min(_most(state.options), len(state.paths) * (state.options.branches or MOST), state.left // to_end)
    fits = (
        count
        for count in range(most, 0, -1)
        if count * to_end + ends <= min(state.room(count), state.left - shape.aside)
    )
    return next(fits)


def _first_halt(state: PathsState) -> float:
    return round(1 - state.options.start, DIGITS)


def _ends(state: PathsState, t: float) -> int:
    """NFE, at most, of finishing one halted trajectory with this round, at time `t`, and with each that follows."""
    rounds = math.ceil(round((1 - t) / (state.options.delta_b - state.options.delta_f), DIGITS))
    return rounds * _end(state, 0, _starts(state, 1)[0].recipe).nfe


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
        state.sampling.integrate(to, steps, round=state.round, index=index),
    )
