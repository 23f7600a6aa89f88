"""Epsilon-greedy search over the noises of one trajectory, step by step.

Ramesh and Mardani 2025, arXiv 2506.03164 (rvignav/diffusion-tts): every step of the sampler is a bandit of its own. K
rounds of N noises each are tried for it: with probability eps a fresh N(0, I), else the pivot plus U(0, lam) sqrt(d) u,
u a random unit vector of d dimensions. What a noise leads to is scored on the data prediction after the step (as the
authors' Stable Diffusion code does; their EDM code scores the prediction that made the step). The round's best becomes
the pivot, and the step is taken with the best.

Two departures. The first round of a step is all fresh, where the code nudges a pivot that nobody has scored. And the
pivot's score competes with the round's (as in zero-order search; it costs nothing), where the code takes the last
round's best even if an earlier one was better.

The scaling axis is K: one trajectory is searched with as many rounds a step as the budget buys. It ends where passes
stop gaining; what the budget has beyond that goes to further passes, all of them equal. An NFE buys one proposal, for
the field at the step's start is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Nudge, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import uniform
from sitsearch.workers.search.passes import NO_PASS, PassState, advance_pass, least_plain

#: Passes are capped near where they stop gaining: at about so many rounds a step, the paper's K.
ROUNDS_CAP = 20


class EpsilonGreedyOptions(base.Options):
    """Options of epsilon-greedy search, in the paper's words; steps outside the band get one round."""

    noises: int = Field(4, ge=1, le=256, description="N, noises of a round")
    rounds: int | None = Field(
        None, ge=1, le=1000, description="K, rounds of a step, if the budget buys them; none: as many as it buys"
    )
    eps: float = Field(0.4, ge=0, le=1, description="probability of a fresh noise")
    lam: float = Field(0.15, ge=0, le=2, description="largest change of the pivot, in units of sqrt(d)")
    band_from: float = Field(0.0, ge=0, le=1, description="from here steps get K rounds, as a fraction of the steps")
    band_to: float = Field(1.0, ge=0, le=1, description="up to here steps get K rounds")


class EpsilonGreedyState(PassState):
    """A trajectory under way.

    Attributes:
        parent: the trajectory's start noise and the steps taken so far; None between passes.
        pivot: the best way yet of taking the next step; None before the step's first round.
        pool: NFE that the pass may still spend.
        rounds, size: rounds that this step gets, and the noises of each.
        done: rounds of it that were told.
    """

    options: EpsilonGreedyOptions
    parent: Recipe | None = None
    pivot: base.Scored | None = None
    pool: int = 0
    rounds: int = 0
    size: int = 0
    done: int = 0


class EpsilonGreedy:
    """Local search for the best noise of every step in turn."""

    name: ClassVar[str] = "epsilon_greedy"
    title: ClassVar[str] = "Epsilon-greedy noise trajectory search"
    reference: ClassVar[str] = "Ramesh and Mardani 2025, arXiv 2506.03164"
    stochastic: ClassVar[bool] = True
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {"noises": 4, "rounds": 20, "eps": 0.4, "lam": 0.15}
    Options: ClassVar[type[base.Options]] = EpsilonGreedyOptions
    State: ClassVar[type[base.State]] = EpsilonGreedyState

    def chosen(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> Mapping[str, Any]:
        """The rounds of the first pass's first step in the band, if the option is open."""
        if options.rounds is not None:
            return {}
        first = _first(self.init(allowance, options))
        return NO_PASS if first is None else {"rounds": first.rounds}

    def least(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: EpsilonGreedyOptions) -> EpsilonGreedyState:
        """The state before the first pass."""
        return EpsilonGreedyState(allowance=allowance, options=options)

    def ask(self, state: EpsilonGreedyState) -> tuple[base.Proposal, ...]:
        """A round of the step under way, the last step, or the start noise of another trajectory."""
        if state.parent is None:
            return state.plain() if _first(state) is None else (_start(state),)
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
        pool = (_pass(state) if state.parent is None else state.pool) - sum(proposal.nfe for proposal in proposals)
        told = advance_pass(state, proposals, candidates, pool=pool)
        best = max(candidates, key=base.score_of)  # the first of equals
        if best.recipe.finished:
            return told.model_copy(update={"parent": None})
        if state.parent is None:
            return _begin_step(told, best.recipe)
        pivot = state.pivot
        if pivot is None or base.score_of(best) > pivot.score:
            pivot = base.scored(best)
        if state.done + 1 == state.rounds:
            return _begin_step(told, pivot.recipe)
        return told.model_copy(update={"pivot": pivot, "done": state.done + 1})


class _Allotment(NamedTuple):
    """Rounds of every step in the band, and noises of a round."""

    rounds: int
    size: int


def _start(state: EpsilonGreedyState) -> base.Proposal:
    """The start noise of another trajectory."""
    return state.propose(0, state.fresh(0))


def _pass(state: EpsilonGreedyState) -> int:
    """NFE of the next pass, if one fits."""
    options, sampling, start = state.options, state.sampling, _start(state)
    if options.rounds is not None:
        return state.room(1)
    steps = range(sampling.steps - 1)
    rounds = sum(ROUNDS_CAP if _banded(state, step) else 1 for step in steps)
    unit, end = _costs(state, start.recipe)
    return state.share(start.nfe + rounds * options.noises * unit + end)


def _first(state: EpsilonGreedyState) -> _Allotment | None:
    """What the steps of the next pass get; None if none fits, and plain trajectories are made."""
    start = _start(state)
    return _allot(state.model_copy(update={"parent": start.recipe}), _pass(state) - start.nfe)


def _begin_step(state: EpsilonGreedyState, parent: Recipe) -> EpsilonGreedyState:
    """The state before the first round of the step that follows `parent`."""
    state = state.model_copy(update={"parent": parent, "pivot": None, "done": 0})
    rounds, size = _allot(state, state.pool) or (1, 1)
    return state.model_copy(update={"rounds": rounds if _banded(state, len(parent.ops)) else 1, "size": size})


def _allot(state: EpsilonGreedyState, pool: int) -> _Allotment | None:
    """What the step that follows `state.parent`, and all that follow, get; None if `pool` is less than two for each.

    Args:
        pool: NFE for them. It is shared out evenly over the steps in the band, once those outside it have a round each.
    """
    options, parent = state.options, state.parent
    assert parent is not None
    steps = range(len(parent.ops), state.sampling.steps - 1)
    if not steps:
        return None
    unit, end = _costs(state, parent)
    pool -= end
    size = min(options.noises, pool // (unit * len(steps)))
    if size < min(2, options.noises):
        return None
    banded = sum(_banded(state, step) for step in steps)
    rounds = (pool // unit - size * (len(steps) - banded)) // (size * banded) if banded else 1
    return _Allotment(rounds if options.rounds is None else min(options.rounds, rounds), size)


def _banded(state: EpsilonGreedyState, step: int) -> bool:
    """The step gets K rounds."""
    return state.options.band_from <= step / state.sampling.steps <= state.options.band_to


def _costs(state: EpsilonGreedyState, parent: Recipe) -> tuple[int, int]:
    """NFE of a proposal for the step that follows `parent`, and of the last step."""
    sampling, step = state.sampling, len(parent.ops)
    child = parent.then(_fresh_step(state.model_copy(update={"parent": parent}), 0))
    end = child.then(sampling.to_end(sampling.time(sampling.steps - 1)))
    return sampling.cost(child, step, evaluated=True), sampling.cost(end, step + 1, evaluated=True)


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
    return state.sampling.integrate(to, 1, round=state.round, index=index)
