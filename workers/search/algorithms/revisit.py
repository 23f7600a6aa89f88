"""Revisiting: noise is put back into the best image so far, to several depths in turn, and taken out again otherwise.

Ours. What becomes of an image to which noise was put back keeps what the noise left of it (SDEdit, Meng et al. 2022,
arXiv 2108.01073): little of it after much noise, nearly all after little. Here that is a mutation:

1. some fresh noises are sampled; the best image is the parent;
2. `children` copies of the parent are carried back by the forward process to a time t, and sampled from there to the
   end with noise of their own, for the fraction 1 - t of a trajectory's NFE;
3. the best child becomes the parent if it is better; 2 is repeated with the next time of `times`, in turns.

After `restart_after` rounds without a gain, or after 24 generations, another walk begins at 1; the best of all walks is
what is kept. Search over
paths puts noise back as well, but into trajectories that are under way to t = 1, and moves on to later times whatever
the scores; evolutionary search mutates states by as much as a step of the SDE would.

The scaling axis is the number of rounds. Every candidate is a finished image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe, Renoise
from sitsearch.workers.search import base

#: Least and most fresh noises of a walk, where the budget says how many.
FEWEST_STARTS, MOST_STARTS = 2, 64
#: Generations of a parent at most: recipes grow with them.
MOST_GENERATIONS = 24


class RevisitOptions(base.Options):
    """Options of revisiting."""

    starts: int | None = Field(
        None, ge=1, le=1024, description="fresh noises that a walk begins with; null: those of a quarter of the budget"
    )
    children: int = Field(4, ge=1, le=256, description="copies of the parent that a round tries")
    times: tuple[float, ...] = Field(
        (0.2, 0.4, 0.6, 0.8), min_length=1, max_length=100, description="times t to which noise is put back, in turns"
    )
    restart_after: int | None = Field(
        12, ge=1, description="rounds without a gain after which another walk begins; null: only after 24 generations"
    )

    @model_validator(mode="after")
    def _within(self) -> RevisitOptions:
        if any(not 0 < time < 1 for time in self.times):
            raise ValueError("each of `times` must be between 0 and 1: all noise at 0, none at 1")
        return self


class RevisitState(base.State):
    """A walk under way.

    Attributes:
        parent: the best candidate of this walk; None before its fresh noises are told.
        turn: rounds of this walk so far.
        idle: rounds since the parent was found.
    """

    options: RevisitOptions
    parent: base.Scored | None = None
    turn: int = 0
    idle: int = 0


class RevisitSearch:
    """Puts noise back into the best image so far and keeps what comes out better."""

    name: ClassVar[str] = "revisit"
    title: ClassVar[str] = "Revisiting (noise put back into the best image)"
    reference: ClassVar[str] = "sitsearch, after Meng et al. 2022, arXiv 2108.01073"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = RevisitOptions
    State: ClassVar[type[base.State]] = RevisitState

    def chosen(self, allowance: base.Allowance, options: RevisitOptions) -> Mapping[str, Any]:
        """`starts`, if it is open."""
        return {"starts": _starts(allowance, options)} if options.starts is None else {}

    def least(self, allowance: base.Allowance, options: RevisitOptions) -> int:
        """As many candidates as are wanted: all are finished images."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: RevisitOptions) -> RevisitState:
        """The state before the first walk."""
        return RevisitState(allowance=allowance, options=options)

    def ask(self, state: RevisitState) -> tuple[base.Proposal, ...]:
        """The fresh noises of a walk, or the parent's children at the next time that the budget buys one at."""
        if state.parent is None:
            count = min(_starts(state.allowance, state.options), state.left // state.sampling.whole)
            return tuple(_kept(state.propose(index, state.trajectory(index))) for index in range(count))
        for late in range(len(state.options.times)):
            time = state.options.times[(state.turn + late) % len(state.options.times)]
            proposals = tuple(
                _child(state, state.parent.recipe, time, index) for index in range(state.options.children)
            )
            affordable = state.left // proposals[0].nfe
            if affordable:
                return proposals[:affordable]
        return ()

    def tell(
        self, state: RevisitState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> RevisitState:
        """Move on to the best child if it is better; begin another walk where none was for long."""
        told = base.advance(state, proposals, candidates)
        top = max(candidates, key=base.score_of)  # the first of equals
        best = base.scored(top)
        if state.parent is None:
            return told.model_copy(update={"parent": best, "turn": 0, "idle": 0})
        gained = best.score > state.parent.score
        idle, parent = (0, best) if gained else (state.idle + 1, state.parent)
        if idle == state.options.restart_after or generations(parent.recipe) >= MOST_GENERATIONS:
            return told.model_copy(update={"parent": None, "turn": 0, "idle": 0})
        return told.model_copy(update={"parent": parent, "turn": state.turn + 1, "idle": idle})


def _starts(allowance: base.Allowance, options: RevisitOptions) -> int:
    quarter = allowance.nfe // (4 * allowance.sampling.whole)
    return options.starts or min(MOST_STARTS, max(FEWEST_STARTS, quarter))


def _child(state: RevisitState, parent: Recipe, time: float, index: int) -> base.Proposal:
    """Child `index` of the round: the parent with noise put back to `time`, and sampled from there."""
    back = Renoise(to=time, round=state.round, index=index)
    child = parent.then(back, state.sampling.to_end(time, round=state.round, index=index))
    return _kept(state.propose(index, child, known=len(parent.ops)))


def _kept(proposal: base.Proposal) -> base.Proposal:
    return proposal.model_copy(update={"revisited": True})


def generations(recipe: Recipe) -> int:
    """How often noise was put back in it."""
    return sum(isinstance(op, Renoise) for op in recipe.ops)
