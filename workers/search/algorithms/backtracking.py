"""Threshold backtracking: depth-first search that goes back in time wherever a data prediction is not good enough.

The DFS of Zhang et al. 2025, arXiv 2505.23614. A trajectory is integrated from mark to mark; at a mark its data
prediction is scored. Where the score is below the mark's threshold, the forward process puts noise back, to `depth`
earlier (to fresh noise, where that is before the start), and the way to the mark is tried again; when the tries are
spent, the best of them goes on. So compute goes where it is needed: what is good at once costs one plain trajectory.
Any sampler will do, for a renoised state parts from itself even along an ODE.

What is ours. The paper's thresholds are numbers to be set for every verifier; here a mark's threshold is, unless
`thresholds` gives it, the score that the best `accept` of those seen there so far have reached, so that about
1 / `accept` tries are needed whatever the verifier's scale. A retry goes back from the best try rather than from the
last, and marks that it passes by are not asked again, which bounds the tries of a trajectory. And `batch` trajectories
are under way together, so that the first of them have each other to be compared with; as one ends another begins.

Both axes scale: by default a budget of n plain trajectories accepts 1 / sqrt(n) of the scores, so that tries at a mark
and trajectories, each of which ends in a candidate, grow alike. A trajectory is begun if the budget pays for it, its
expected tries, and those of all under way; a retry is made if it leaves enough to finish them all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe, Renoise
from sitsearch.workers.search import base
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling

#: Scores that a mark remembers: the latest. Its threshold is a quantile of them.
WINDOW = 256
#: Scores without which a mark has no threshold yet.
LEAST_SEEN = 4


class BacktrackingOptions(base.Options):
    """Options of threshold backtracking."""

    marks: tuple[float, ...] = Field(
        (0.25, 0.5, 0.75),
        min_length=1,
        max_length=100,
        description="where data predictions are scored, as ascending fractions of the steps",
    )
    accept: float | None = Field(
        None,
        gt=0,
        le=1,
        description="fraction of the scores seen at a mark that is good enough; none: fewer, the more the budget buys",
    )
    thresholds: tuple[float, ...] | None = Field(
        None, description="the score that is good enough at each mark, in place of `accept`"
    )
    depth: float = Field(0.25, gt=0, le=1, description="how far back a retry begins, as a fraction of the steps")
    tries: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="most tries of a trajectory at a mark, the first one included; none: twice those to be expected",
    )
    batch: int = Field(8, ge=1, le=256, description="trajectories under way together")

    @model_validator(mode="after")
    def _agree(self) -> BacktrackingOptions:
        if list(self.marks) != sorted(set(self.marks)) or any(not 0 < mark < 1 for mark in self.marks):
            raise ValueError("`marks` must ascend between 0 and 1")
        if self.thresholds is not None and len(self.thresholds) != len(self.marks):
            raise ValueError(f"`thresholds` must be as many as `marks`, {len(self.marks)}, not {len(self.thresholds)}")
        return self


def opened(allowance: base.Allowance, options: BacktrackingOptions) -> BacktrackingOptions:
    """The options, those that were left open filled in with what the budget buys; `accept` only where it is of use."""
    affordable = max(4, allowance.nfe // allowance.sampling.whole)
    accept = options.accept or round(affordable**-0.5, 4)
    tries = options.tries or min(1000, round(2 / accept))
    return options.model_copy(update={"accept": options.accept if options.thresholds else accept, "tries": tries})


class Line(Schema):
    """A trajectory that halts at a mark.

    Attributes:
        best: the best way that was found to the mark.
        tries: ways that were tried.
    """

    best: base.Scored
    tries: int = 1


class BacktrackingState(PassState):
    """The trajectories under way.

    Attributes:
        lines: they, in the order they were begun.
        seen: for each mark, the scores seen there, as they were told: the latest `WINDOW`.
    """

    options: BacktrackingOptions
    lines: tuple[Line, ...] = ()
    seen: tuple[tuple[float, ...], ...] = ()


class Backtracking:
    """Trajectories that go back and try again where their data predictions do not reach a threshold."""

    name: ClassVar[str] = "backtracking"
    title: ClassVar[str] = "Threshold backtracking (depth-first search)"
    reference: ClassVar[str] = "Zhang et al. 2025, arXiv 2505.23614"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = BacktrackingOptions
    State: ClassVar[type[base.State]] = BacktrackingState

    def chosen(self, allowance: base.Allowance, options: BacktrackingOptions) -> Mapping[str, Any]:
        """Which scores are good enough, and how often it is tried."""
        filled = opened(allowance, options)
        chosen = {"tries": filled.tries} if options.tries is None else {}
        return {"accept": filled.accept, **chosen} if filled.accept != options.accept else chosen

    def least(self, allowance: base.Allowance, options: BacktrackingOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: BacktrackingOptions) -> BacktrackingState:
        """The state before the first trajectory."""
        return BacktrackingState(allowance=allowance, options=options)

    def ask(self, state: BacktrackingState) -> tuple[base.Proposal, ...]:
        """The next move of every trajectory under way, and the first one of those that begin."""
        return tuple(islice(_moves(state), state.options.batch)) or state.plain()

    def tell(
        self, state: BacktrackingState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> BacktrackingState:
        """Remember the best way to each mark, and the scores seen there."""
        told = advance_pass(state, proposals, candidates)
        marks, lines = Marks(opened(state.allowance, state.options), state.sampling), []
        seen = list(state.seen or ((),) * len(marks))
        for index, candidate in enumerate(candidates):
            if candidate.recipe.finished:
                continue
            place, arrived = marks.place(candidate.recipe), base.score_of(candidate)
            seen[place] = (*seen[place], arrived)[-WINDOW:]
            line = Line(best=base.Scored(recipe=candidate.recipe, score=arrived))
            if index < len(state.lines) and marks.place((before := state.lines[index]).best.recipe) == place:
                best = before.best if before.best.score >= arrived else line.best
                line = Line(best=best, tries=before.tries + 1)
            lines.append(line)
        return told.model_copy(update={"lines": tuple(lines), "seen": tuple(seen)})


class Marks:
    """The marks of a trajectory on its grid, fewer than asked for where these are finer than steps.

    Args:
        options: where the marks are, and what is good enough there; none left open.
        sampling: how trajectories are sampled.

    Attributes:
        steps: the steps after which they lie, ascending; then the last one of the trajectory.
    """

    def __init__(self, options: BacktrackingOptions, sampling: Sampling) -> None:
        total = sampling.steps
        thresholds = options.thresholds or (None,) * len(options.marks)
        at = {round(mark * total): limit for mark, limit in zip(options.marks, thresholds, strict=True)}
        self._thresholds = [limit for step, limit in at.items() if 0 < step < total]
        self.steps = [*(step for step in at if 0 < step < total), total]
        self._options, self._sampling = options, sampling
        self._depth = max(1, round(options.depth * total))

    def __len__(self) -> int:
        return len(self._thresholds)

    def place(self, recipe: Recipe) -> int:
        """The number of the mark at which a recipe halts."""
        return self.steps.index(round(self._sampling.place(recipe.time)))

    def threshold(self, place: int, seen: Sequence[float]) -> float:
        """The score that is good enough at mark `place`, where the scores `seen` were seen."""
        given = self._thresholds[place]
        if given is not None:
            return given
        if len(seen) < LEAST_SEEN:
            return -math.inf
        return sorted(seen, reverse=True)[math.ceil((self._options.accept or 1.0) * len(seen)) - 1]

    def onward(self, recipe: Recipe, place: int, round: int, index: int) -> Recipe:
        """From mark `place`, -1 for a start noise, to the next one, or to the end."""
        start, end = (self.steps[place] if place >= 0 else 0), self.steps[place + 1]
        return recipe.then(self._sampling.integrate(self._sampling.time(end), end - start, round=round, index=index))

    def again(self, recipe: Recipe, fresh: Recipe, place: int, round: int, index: int) -> tuple[Recipe, int]:
        """Another way to mark `place` than `recipe`, and how many of the latter's operations are kept.

        It begins `depth` before the mark, or from `fresh` noise where that is before the start.
        """
        end = self.steps[place]
        back = max(0, end - self._depth)
        start = recipe.then(Renoise(to=self._sampling.time(back), round=round, index=index)) if back else fresh
        onward = self._sampling.integrate(self._sampling.time(end), end - back, round=round, index=index)
        return start.then(onward), len(recipe.ops) if back else 0


def _moves(state: BacktrackingState) -> Iterator[base.Proposal]:
    """What every line does next, in their order, then the lines that begin, without end if the budget has none."""
    options = opened(state.allowance, state.options)
    marks, most = Marks(options, state.sampling), options.tries or 1
    if not len(marks):
        return
    finish, retry = _costs(state, marks)
    # Tries that a line is likely to need at a mark, besides the first; given thresholds may need all.
    expected = (min(most, 1 / options.accept) if options.accept and not options.thresholds else most) - 1
    likely = [cost + expected * sum(retry[place:]) for place, cost in enumerate(finish[1:])]
    begin = finish[0] + expected * sum(retry)

    places = [marks.place(line.best.recipe) for line in state.lines]
    slack = state.room(len(places)) - sum(finish[place + 1] for place in places)
    tried = 0
    for index, (line, place) in enumerate(zip(state.lines, places, strict=True)):
        recipe, enough = line.best.recipe, marks.threshold(place, state.seen[place])
        if line.best.score < enough and line.tries < most and tried + retry[place] <= slack:
            tried += retry[place]
            again, known = marks.again(recipe, state.fresh(index), place, state.round, index)
            yield state.propose(index, again, known=known)
        else:
            onward = marks.onward(recipe, place, state.round, index)
            yield state.propose(index, onward, known=len(recipe.ops), evaluated=True)

    promised = tried + sum(likely[place] for place in places)
    count = len(places)
    while promised + begin <= state.room(count + 1) or (count == 0 and finish[0] + retry[0] <= state.room(1)):
        yield state.propose(count, marks.onward(state.fresh(count), -1, state.round, count))
        promised, count = promised + begin, count + 1


def _costs(state: BacktrackingState, marks: Marks) -> tuple[list[int], list[int]]:
    """NFE from a start noise and from each mark to the end without a retry, and of a retry at each mark."""
    sampling, recipe = state.sampling, state.fresh(0)
    ways, retry = [], []
    for place in range(-1, len(marks)):
        if place >= 0:
            retry.append(sampling.cost(*marks.again(recipe, state.fresh(0), place, 0, 0)))
        onward = marks.onward(recipe, place, 0, 0)
        ways.append(sampling.cost(onward, len(recipe.ops), evaluated=place >= 0))
        recipe = onward
    return [sum(ways[place:]) for place in range(len(ways))], retry
