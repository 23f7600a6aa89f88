"""Successive halving on data predictions: start many trajectories, and finish only the promising ones.

Ours; the scheme is that of Karnin et al. 2013, "Almost optimal exploration in multi-armed bandits", which Jamieson and
Talwalkar 2016, arXiv 1502.07943, apply to runs that improve with time. The n start noises of a pass are integrated to
the first mark, where their data predictions D(x, t) are scored; the best fraction `keep` goes on to the next mark, and
so on; what goes on from the last mark is finished. The evaluation that gave D is also the first one of the step that
follows, so that a score midway costs nothing to those that go on.

By default half of the trajectories go on at 1/8, 1/4 and 1/2 of the steps: as each mark lies twice as far as the one
before, every stretch after the first takes about the same NFE, as successive halving wants it, and a start takes less
than half of a trajectory's. Scores of D must foretell final scores for this to pay. For `glyphs` and its classifier
(Euler, 8 steps, no guidance) their rank correlation is 0.5, 0.7 and 0.9 at the three marks, that of D at t = 0 is 0.3,
which does not repay even the one evaluation that it takes.

The scaling axis is n: as many starts as the budget pays for, up to `starts`; what it has beyond that goes to further
passes. A pass that is cut short, by time, has no image to show: the bound is what keeps the search anytime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling


class HalvingOptions(base.Options):
    """Options of successive halving."""

    starts: int = Field(64, ge=2, le=4096, description="n, start noises of a pass, if the budget buys them")
    keep: float = Field(0.5, gt=0, lt=1, description="fraction that goes on from a mark; at least one does")
    marks: tuple[float, ...] = Field(
        (0.125, 0.25, 0.5),
        min_length=1,
        max_length=100,
        description="where data predictions are scored, as ascending fractions of the steps",
    )

    @model_validator(mode="after")
    def _ascending(self) -> HalvingOptions:
        if list(self.marks) != sorted(set(self.marks)) or any(not 0 < mark < 1 for mark in self.marks):
            raise ValueError("`marks` must ascend between 0 and 1")
        return self


class HalvingState(PassState):
    """A pass under way.

    Attributes:
        survivors: the trajectories that go on from the last mark, best first; empty between passes.
    """

    options: HalvingOptions
    survivors: tuple[Recipe, ...] = ()


class SuccessiveHalving:
    """Finishes the best of many trajectories, by how their data predictions score on the way."""

    name: ClassVar[str] = "successive_halving"
    title: ClassVar[str] = "Successive halving on data predictions"
    reference: ClassVar[str] = "sitsearch, after Karnin et al. 2013 and Jamieson and Talwalkar 2016, arXiv 1502.07943"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = HalvingOptions
    State: ClassVar[type[base.State]] = HalvingState

    def chosen(self, allowance: base.Allowance, options: HalvingOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: HalvingOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: HalvingOptions) -> HalvingState:
        """The state before the first pass."""
        return HalvingState(allowance=allowance, options=options)

    def ask(self, state: HalvingState) -> tuple[base.Proposal, ...]:
        """The survivors' way to the next mark, or to the end; between passes, as many fresh starts as fit."""
        marks = marked_steps(state.options, state.sampling)
        if state.survivors:
            return tuple(
                state.propose(index, _stretch(state, marks, recipe, index), known=len(recipe.ops), evaluated=True)
                for index, recipe in enumerate(state.survivors)
            )
        starts = _pass_size(state, marks)
        return (
            tuple(state.propose(index, _stretch(state, marks, state.fresh(index), index)) for index in range(starts))
            or state.plain()
        )

    def tell(
        self, state: HalvingState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> HalvingState:
        """Let the best go on."""
        told = advance_pass(state, proposals, candidates)
        best = sorted(candidates, key=lambda candidate: -base.score_of(candidate))  # stable: the first of equals
        halted = tuple(candidate.recipe for candidate in best if not candidate.recipe.finished)
        return told.model_copy(update={"survivors": halted[: _going_on(len(candidates), state.options)]})


def marked_steps(options: HalvingOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps after which data predictions are scored, ascending; fewer than the marks if these are finer than steps."""
    steps = dict.fromkeys(round(mark * sampling.steps) for mark in options.marks)
    return tuple(step for step in steps if 0 < step < sampling.steps)


def _going_on(count: int, options: HalvingOptions) -> int:
    """How many of `count` trajectories go on from a mark."""
    return max(1, round(count * options.keep))


def _stretch(state: HalvingState, marks: Sequence[int], recipe: Recipe, index: int) -> Recipe:
    """Trajectory `index` of the round, carried on from its last mark to the next one, or to the end."""
    done, sampling = len(recipe.ops), state.sampling
    start = marks[done - 1] if done else 0
    end = marks[done] if done < len(marks) else sampling.steps
    return recipe.then(Integrate(to=sampling.time(end), steps=end - start, round=state.round, index=index))


def _pass_size(state: HalvingState, marks: Sequence[int]) -> int:
    """The most starts that can be carried through a pass; 0 if not two can, or if there is no mark to choose at."""
    if not marks:
        return 0
    costs, recipe = [], state.fresh(0)
    for done in range(len(marks) + 1):
        recipe = _stretch(state, marks, recipe, 0)
        costs.append(state.sampling.cost(recipe, done, evaluated=done > 0))
    for starts in range(min(state.options.starts, state.left // costs[0]), 1, -1):
        total, count = starts * costs[0], starts
        for cost in costs[1:]:
            count = _going_on(count, state.options)
            total += count * cost
        if total <= state.room(count):
            return starts
    return 0
