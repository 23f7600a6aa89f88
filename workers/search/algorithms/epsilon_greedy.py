"""Epsilon-greedy search over the noises of one trajectory, step by step.

Ramesh and Mardani 2025, arXiv 2506.03164 (rvignav/diffusion-tts): every step of the sampler is a bandit of its own. K
rounds of N noises each are tried for it: with probability eps a fresh N(0, I), else the pivot plus U(0, lam) sqrt(d) u,
u a random unit vector of d dimensions. What a noise leads to is scored on the data prediction after the step (as the
authors' Stable Diffusion code does; their EDM code scores the prediction that made the step). The round's best becomes
the pivot, and the step is taken with the best.

Two departures. The first round of a step is all fresh, where the code nudges a pivot that nobody has scored. And the
pivot's score competes with the round's (as in zero-order search; it costs nothing), where the code takes the last
round's best even if an earlier one was better.

The scaling axis is K: one trajectory is searched with as many rounds a step as the budget buys, up to `rounds`; what
the budget has beyond that goes to further passes. An NFE buys one proposal, for the field at the step's start is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Nudge, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import uniform
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain


class EpsilonGreedyOptions(base.Options):
    """Options of epsilon-greedy search, in the paper's words; steps outside the band get one round."""

    noises: int = Field(4, ge=1, le=256, description="N, noises of a round")
    rounds: int = Field(20, ge=1, le=1000, description="K, rounds of a step, if the budget buys them")
    eps: float = Field(0.4, ge=0, le=1, description="probability of a fresh noise")
    lam: float = Field(0.15, ge=0, le=2, description="largest change of the pivot, in units of sqrt(d)")
    band_from: float = Field(0.0, ge=0, le=1, description="from here steps get K rounds, as a fraction of the steps")
    band_to: float = Field(1.0, ge=0, le=1, description="up to here steps get K rounds")


class EpsilonGreedyState(PassState):
    """A trajectory under way.

    Attributes:
        parent: the trajectory's start noise and the steps taken so far; None between passes.
        pivot: the best way yet of taking the next step; None before the step's first round.
        rounds, size: rounds that this step gets, and the noises of each.
        done: rounds of it that were told.
    """

    options: EpsilonGreedyOptions
    parent: Recipe | None = None
    pivot: base.Scored | None = None
    rounds: int = 0
    size: int = 0
    done: int = 0


class EpsilonGreedy:
    """Local search for the best noise of every step in turn."""

    name: ClassVar[str] = "epsilon_greedy"
    title: ClassVar[str] = "Epsilon-greedy noise trajectory search"
    reference: ClassVar[str] = "Ramesh and Mardani 2025, arXiv 2506.03164"
    stochastic: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = EpsilonGreedyOptions
    State: ClassVar[type[base.State]] = EpsilonGreedyState

    def chosen(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> EpsilonGreedyState:
        """The state before the first pass."""
        return EpsilonGreedyState(allowance=allowance, options=options)

    def ask(self, state: EpsilonGreedyState) -> tuple[base.Proposal, ...]:
        """A round of the step under way, the last step, or the start noise of another trajectory."""
        if state.parent is None:
            start = state.propose(0, state.fresh(0))
            fits = _allot(state.model_copy(update={"parent": start.recipe}), state.room(1) - start.nfe) is not None
            return (start,) if fits else state.plain()
        known = len(state.parent.ops)
        if known == state.sampling.steps - 1:
            end = state.sampling.to_end(state.parent.time, round=state.round)
            return (state.propose(0, state.parent.then(end), known=known, evaluated=True),)
        return tuple(
            state.propose(index, state.parent.then(_step(state, index)), known=known, evaluated=True)
            for index in range(state.size)
        )

    def tell(
        self, state: EpsilonGreedyState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> EpsilonGreedyState:
        """Move the pivot to the round's best if that is better; take the step after its last round."""
        told = advance_pass(state, proposals, candidates)
        best = max(candidates, key=base.score_of)  # the first of equals
        if best.recipe.finished:
            return told.model_copy(update={"parent": None})
        if state.parent is None:
            return _begin_step(told, best.recipe)
        pivot = state.pivot
        if pivot is None or base.score_of(best) > pivot.score:
            pivot = base.Scored(recipe=best.recipe, score=base.score_of(best))
        if state.done + 1 == state.rounds:
            return _begin_step(told, pivot.recipe)
        return told.model_copy(update={"pivot": pivot, "done": state.done + 1})


def _begin_step(state: EpsilonGreedyState, parent: Recipe) -> EpsilonGreedyState:
    """The state before the first round of the step that follows `parent`."""
    state = state.model_copy(update={"parent": parent, "pivot": None, "done": 0})
    rounds, size = _allot(state, state.room(1)) or (1, 1)
    return state.model_copy(update={"rounds": rounds, "size": size})


def _allot(state: EpsilonGreedyState, room: int) -> tuple[int, int] | None:
    """Rounds of the step that follows `state.parent`, and noises of a round; None if `room` is less than two for each.

    Args:
        room: NFE for this step and all that follow. It is shared out evenly over the steps in the band, once those
            outside it have a round each.
    """
    options, sampling, parent = state.options, state.sampling, state.parent
    assert parent is not None
    step, last = len(parent.ops), sampling.steps - 1
    if step >= last:
        return None
    child = parent.then(_fresh_step(state, 0))
    unit = sampling.cost(child, step, evaluated=True)
    room -= sampling.cost(child.then(sampling.to_end(sampling.time(last))), step + 1, evaluated=True)
    size = min(options.noises, room // (unit * (last - step)))
    if size < min(2, options.noises):
        return None
    banded = [options.band_from <= i / sampling.steps <= options.band_to for i in range(step, last)]
    if not banded[0]:
        return 1, size
    rounds = (room // unit - size * banded.count(False)) // (size * banded.count(True))
    return min(options.rounds, rounds), size


def _step(state: EpsilonGreedyState, index: int) -> Integrate:
    """The step with noise `index` of the round: fresh, or near the pivot."""
    if state.pivot is None or uniform(state.allowance.seed, state.round, index) < state.options.eps:
        return _fresh_step(state, index)
    pivot = state.pivot.recipe.ops[-1]
    assert isinstance(pivot, Integrate)
    nudge = Nudge(round=state.round, index=index, radius=state.options.lam)
    return pivot.model_copy(update={"nudges": (*pivot.nudges, nudge)})


def _fresh_step(state: EpsilonGreedyState, index: int) -> Integrate:
    """The step with a noise of its own."""
    assert state.parent is not None
    to = state.sampling.time(len(state.parent.ops) + 1)
    return Integrate(to=to, steps=1, round=state.round, index=index)
