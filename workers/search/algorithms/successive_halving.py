"""Successive halving on data predictions: start many trajectories, and finish only the promising ones.

Ours; the scheme is that of Karnin et al. 2013, "Almost optimal exploration in multi-armed bandits", which Jamieson and
Talwalkar 2016, arXiv 1502.07943, apply to runs that improve with time. The n start noises of a pass are integrated to
the first mark, where their data predictions D(x, t) are scored; the best go on to the next mark, and so on; what goes
on from the last mark is finished. The evaluation that gave D is also the first one of the step that follows, so that a
score midway costs nothing to those that go on.

How many go on is what their scores are worth. With correlation r of scores at a mark with final scores, both normal,
the trajectory that will be the best of n, with a final score of z_n = Phi^-1(2^(-1 / n)) standard deviations (the
median), has there a score above

    r z_n - Phi^-1(c) sqrt(1 - r^2)

with probability c, and the fraction q = 1 - Phi of that goes on so that it survives with this probability. Of the c by
mark those are taken with which a pass finds most for its NFE: with the greatest product of all c (a pass that loses its
best with probability 1 - c is worth c of its starts) over the NFE of a start and of what goes on from it. The better
scores foretell the end, the fewer go on; where they foretell nothing, all do, as then no c below 1 repays what it
loses. The correlations of the first pass are the prior's; those of later passes are fitted to the trajectories that
were finished (see `workers/search/calibration.py`). In a later pass there also is an image to beat: a trajectory whose
predicted final score at a high quantile is below it does not go on, though of `FLOOR` of the pass's trajectories the
best always do, without which a calibration that is wrong would never be told so. With `keep`, that fraction goes on at
every mark, whatever the scores.

By default the marks are 1/8, 1/4 and 1/2 of the steps: as each lies twice as far as the one before, a start takes less
than half of a trajectory's NFE. For `glyphs` and its classifier (Euler, 8 steps, no guidance) the rank correlation is
0.5, 0.7 and 0.9 at the three marks, the prior's; that of D at t = 0 is 0.3, which does not repay even the one
evaluation that it takes.

The scaling axis is n. Unless `starts` names it, the budget goes to equal passes of at most `MOST` starts: a pass that
is cut short, by time, has no image to show, and later ones know more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.calibration import GLYPHS, NORMAL, CalibratedState, Calibration, Prior, check_ascending
from sitsearch.workers.search.passes import advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling

#: Start noises of a pass, at most, where `starts` does not name them.
MOST = 64
#: Probabilities that are tried, for the best trajectory of a pass to survive a mark.
SURVIVAL = (*(percent / 100 for percent in range(50, 100, 5)), 0.98, 1.0)
#: How often each mark's is chosen anew, given the others'.
SWEEPS = 4
#: Of those that a pass may let go on from a mark, the fraction that does even if none is likely to win.
FLOOR = 0.25
#: Digits to which a number of trajectories counts.
DIGITS = 6


class HalvingOptions(base.Options):
    """Options of successive halving."""

    starts: int | None = Field(
        None, ge=2, le=4096, description=f"n, start noises of a pass; none: what the budget buys, at most {MOST}"
    )
    keep: float | None = Field(
        None, gt=0, lt=1, description="fraction that goes on from a mark, at least one; none: what its scores are worth"
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="of the predicted final score, must reach the best image for a trajectory to go on, if `keep` is "
        "none; none: 1 - 1 / (N + 1) after N starts",
    )
    marks: tuple[float, ...] = Field(
        (0.125, 0.25, 0.5),
        min_length=1,
        max_length=100,
        description="where data predictions are scored, as ascending fractions of the steps",
    )
    prior: tuple[Prior, ...] = Field(
        GLYPHS,
        min_length=1,
        max_length=100,
        description="what scores at times t are worth before any was seen: correlations with the final score, or the "
        "calibration of another search",
    )

    @model_validator(mode="after")
    def _ascending(self) -> HalvingOptions:
        if list(self.marks) != sorted(set(self.marks)) or any(not 0 < mark < 1 for mark in self.marks):
            raise ValueError("`marks` must ascend between 0 and 1")
        check_ascending(self.prior)
        return self


class Runner(Schema):
    """A trajectory midway.

    Attributes:
        scored: its data predictions, by mark; the last one's recipe is the trajectory's.
    """

    scored: tuple[base.Scored, ...]

    @property
    def recipe(self) -> Recipe:
        """Up to the last mark."""
        return self.scored[-1].recipe


class HalvingState(CalibratedState):
    """A pass under way.

    Attributes:
        survivors: the trajectories that go on from the last mark, best first; empty between passes.
        planned: how many of the pass may go on from each mark.
    """

    options: HalvingOptions
    survivors: tuple[Runner, ...] = ()
    planned: tuple[int, ...] = ()


class SuccessiveHalving:
    """Finishes the best of many trajectories, by how their data predictions score on the way."""

    name: ClassVar[str] = "successive_halving"
    title: ClassVar[str] = "Successive halving on data predictions"
    reference: ClassVar[str] = "sitsearch, after Karnin et al. 2013 and Jamieson and Talwalkar 2016, arXiv 1502.07943"
    stochastic: ClassVar[bool] = False
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = False  # unless `keep` is named
    paper: ClassVar[Mapping[str, Any]] = {"starts": MOST, "keep": 0.5}
    Options: ClassVar[type[base.Options]] = HalvingOptions
    State: ClassVar[type[base.State]] = HalvingState

    def chosen(self, allowance: base.Allowance, options: HalvingOptions) -> Mapping[str, Any]:
        """`starts`, and as `keep` the fraction of those at a mark that may go on, by mark."""
        counts = _next_pass(self.init(allowance, options))
        found: dict[str, Any] = {"starts": counts[0] if counts else 0} if options.starts is None else {}
        if options.keep is None and counts:
            found["keep"] = tuple(round(b / a, 3) for a, b in pairwise(counts))
        return found

    def least(self, allowance: base.Allowance, options: HalvingOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: HalvingOptions) -> HalvingState:
        """The state before the first pass."""
        return HalvingState(allowance=allowance, options=options, known=Calibration(prior=options.prior))

    def ask(self, state: HalvingState) -> tuple[base.Proposal, ...]:
        """The survivors' way to the next mark, or to the end; between passes, as many fresh starts as fit."""
        marks = marked_steps(state.options, state.sampling)
        if state.survivors:
            return tuple(
                state.propose(
                    index, _stretch(state, marks, runner.recipe, index), known=len(runner.recipe.ops), evaluated=True
                )
                for index, runner in enumerate(state.survivors)
            )
        counts = _next_pass(state)
        return (
            tuple(state.propose(index, _stretch(state, marks, state.fresh(index), index)) for index in range(counts[0]))
            if counts
            else state.plain()
        )

    def tell(
        self, state: HalvingState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> HalvingState:
        """Learn from what was finished, or let the best go on."""
        told = advance_pass(state, proposals, candidates, best=state.with_finished(candidates))
        if not state.survivors:
            told = told.model_copy(update={"drawn": state.drawn + len(candidates)})
        if candidates[0].recipe.finished:
            known = state.known
            for runner, candidate in zip(state.survivors, candidates, strict=False):  # none is a plain trajectory's
                for scored in runner.scored:
                    known = known.learn(scored.recipe.time, [(scored.score, base.score_of(candidate))])
            return told.model_copy(update={"survivors": (), "known": known})
        planned = state.planned if state.survivors else _next_pass(state)[1:]
        return _prune(told, planned, state.survivors, candidates)


def marked_steps(options: HalvingOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps after which data predictions are scored, ascending; fewer than the marks if these are finer than steps."""
    steps = dict.fromkeys(round(mark * sampling.steps) for mark in options.marks)
    return tuple(step for step in steps if 0 < step < sampling.steps)


def fraction(count: int, correlation: float, survival: float) -> float:
    """How much of `count` trajectories must go on from a mark for the best of them to do so with this probability.

    Args:
        count: of the pass, at least 1.
        correlation: of scores at the mark with final ones; below 0 it counts as 0.
        survival: in [0.5, 1]; below, better scores would not let fewer go on.
    """
    if survival == 1:
        return 1.0
    r, best = min(1.0, max(0.0, correlation)), NORMAL.inv_cdf(0.5 ** (1 / count))
    return 1 - NORMAL.cdf(r * best - NORMAL.inv_cdf(survival) * math.sqrt(1 - r * r))


def worthwhile(count: int, correlations: Sequence[float], costs: Sequence[int]) -> tuple[float, ...]:
    """The fractions of a pass's `count` starts that go on from each mark: those with which it finds most for its NFE.

    Args:
        count: starts of the pass, at least 1.
        correlations: of scores with final ones, by mark.
        costs: NFE to the first mark, from each mark to the next, and from the last to the end.
    """
    needed = [{c: fraction(count, r, c) for c in SURVIVAL} for r in correlations]
    chosen = [SURVIVAL[-1]] * len(needed)

    def worth() -> float:
        share, nfe = 1.0, float(costs[0])
        for by_survival, c, cost in zip(needed, chosen, costs[1:], strict=True):
            share = min(share, by_survival[c])
            nfe += share * cost
        return math.prod(chosen) / nfe

    for _ in range(SWEEPS):
        for mark in reversed(range(len(needed))):
            worths = []
            for c in SURVIVAL:
                chosen[mark] = c
                worths.append((worth(), c))
            chosen[mark] = max(worths)[1]
    shares = (by_survival[c] for by_survival, c in zip(needed, chosen, strict=True))
    return tuple(accumulate(shares, min))


def _shares(state: HalvingState, costs: Sequence[int], most: int) -> tuple[float, ...]:
    """What goes on from each mark, as fractions of the starts of a pass of at most `most`."""
    times = (state.sampling.time(step) for step in marked_steps(state.options, state.sampling))
    return worthwhile(most, [state.known.at(t).correlation for t in times], costs)


def _going_on(state: HalvingState, starts: int, shares: Sequence[float]) -> tuple[int, ...]:
    """How many of a pass's trajectories may go on from each mark."""
    counts, keep = [starts], state.options.keep
    for share in shares:
        if keep is not None:
            counts.append(max(1, round(counts[-1] * keep)))
        else:
            counts.append(min(counts[-1], max(1, math.ceil(round(starts * share, DIGITS)))))
    return tuple(counts[1:])


def _prune(
    state: HalvingState, planned: tuple[int, ...], runners: Sequence[Runner], candidates: Sequence[Candidate]
) -> HalvingState:
    """The state once those that go on from a mark are chosen: at most as many as planned."""
    scores = [base.score_of(candidate) for candidate in candidates]
    known = state.known.see(candidates[0].recipe.time, scores)
    fit, bar = known.at(candidates[0].recipe.time), state.incumbent
    number = planned[0]
    if state.options.keep is None and bar is not None:
        quantile = state.judging(state.options.quantile)
        number = min(number, max(math.ceil(FLOOR * number), sum(fit.quantile(s, quantile) >= bar for s in scores)))
    past = [runner.scored for runner in runners] or [()] * len(candidates)
    reached = [
        Runner(scored=(*before, base.Scored(recipe=candidate.recipe, score=score)))
        for before, candidate, score in zip(past, candidates, scores, strict=True)
    ]
    reached.sort(key=lambda runner: -runner.scored[-1].score)  # stable: the first of equals
    return state.model_copy(update={"survivors": tuple(reached[:number]), "planned": planned[1:], "known": known})


def _stretch(state: HalvingState, marks: Sequence[int], recipe: Recipe, index: int) -> Recipe:
    """Trajectory `index` of the round, carried on from its last mark to the next one, or to the end."""
    done, sampling = len(recipe.ops), state.sampling
    start = marks[done - 1] if done else 0
    end = marks[done] if done < len(marks) else sampling.steps
    return recipe.then(sampling.integrate(sampling.time(end), end - start, round=state.round, index=index))


def _costs(state: HalvingState) -> tuple[int, ...]:
    """NFE of a trajectory to the first mark, from each mark to the next, and from the last to the end."""
    marks = marked_steps(state.options, state.sampling)
    costs, recipe = [], state.fresh(0)
    for done in range(len(marks) + 1):
        recipe = _stretch(state, marks, recipe, 0)
        costs.append(state.sampling.cost(recipe, done, evaluated=done > 0))
    return tuple(costs)


def _next_pass(state: HalvingState) -> tuple[int, ...]:
    """Starts of the next pass, and how many may go on from each mark.

    Empty if not two can be carried through, or if there is no mark to choose at.
    """
    costs = _costs(state)
    most = min(state.options.starts or MOST, state.left // costs[0])
    if len(costs) == 1 or most < 2:
        return ()
    shares = _shares(state, costs, most)

    def priced(starts: int) -> tuple[tuple[int, ...], int]:
        counts = (starts, *_going_on(state, starts, shares))
        return counts, sum(count * cost for count, cost in zip(counts, costs, strict=True))

    passes = 1 if state.options.starts else 1 + state.left // priced(MOST + 1)[1]
    for starts in range(most, 1, -1):
        counts, nfe = priced(starts)
        if nfe <= min(state.left // passes, state.room(counts[-1])):
            return counts
    return ()
