"""Rollover budget forcing: what one step of the trajectory does not need of its quota, the next one may spend.

Kim et al. 2025, arXiv 2503.19385 (KAIST-Visual-AI-Group/Flow-Inference-Time-Scaling). Among some start noises the one
with the best data prediction is taken. Then every step of the SDE has a quota of NFE: children of the state are
proposed, scored on their data predictions at the step's end, and the first that beats the best score so far is taken at
once, its unused quota rolling over to the next step; when the quota is spent first, the best child is taken. The last
step before the end spends all that is left (as the authors' code does).

The paper proposes children one at a time, which is a round trip each; `batch` of them together cost at most batch - 1
NFE more than the first success needed, and the best of the batch is taken. Its other finding, that children differ more
on a variance-preserving path than on the linear one, is a setting of the sampler (`sampler.path: "VP"`), not of the
search; its diffusion g is 3 t^2 in the paper's time, which runs from noise at 1 to data at 0.

The scaling axis is the quota: it is what the budget gives each step, up to `quota`; what the budget has beyond that
goes to further passes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain


class RolloverOptions(base.Options):
    """Options of rollover budget forcing; 500 NFE over 10 steps make the paper's quota of 50."""

    quota: int = Field(50, ge=1, le=10_000, description="most NFE that a step is given, besides what rolled over to it")
    starts: int = Field(
        25, ge=1, le=256, description="start noises to choose from, at most a twentieth of a pass's NFE"
    )
    batch: int = Field(4, ge=1, le=256, description="children proposed together; the paper's algorithm is 1")


class RolloverState(PassState):
    """A trajectory under way.

    Attributes:
        parent: the trajectory's start noise and the steps taken so far; None between passes.
        best: the best data prediction in this pass.
        share: NFE that every step of this pass is given.
        quota: NFE that the step under way may still spend.
        child: the best way yet of taking it.
    """

    options: RolloverOptions
    parent: Recipe | None = None
    best: base.Scored | None = None
    share: int = 0
    quota: int = 0
    child: base.Scored | None = None


class Rollover:
    """Best child of every step, with a budget that goes where progress is hard."""

    name: ClassVar[str] = "rollover"
    title: ClassVar[str] = "Rollover budget forcing"
    reference: ClassVar[str] = "Kim et al. 2025, arXiv 2503.19385"
    stochastic: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = RolloverOptions
    State: ClassVar[type[base.State]] = RolloverState

    def chosen(self, allowance: base.Allowance, options: RolloverOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: RolloverOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: RolloverOptions) -> RolloverState:
        """The state before the first pass."""
        return RolloverState(allowance=allowance, options=options)

    def ask(self, state: RolloverState) -> tuple[base.Proposal, ...]:
        """A batch of children, the last step, or the start noises of another trajectory."""
        if state.parent is None:
            starts, share = _plan(state)
            return tuple(state.propose(i, state.fresh(i)) for i in range(starts)) if share else state.plain()
        known = len(state.parent.ops)
        if known == state.sampling.steps - 1:
            end = state.sampling.to_end(state.parent.time, round=state.round)
            return (state.propose(0, state.parent.then(end), known=known, evaluated=True),)
        count = min(state.options.batch, state.quota // _unit(state))
        return tuple(
            state.propose(index, state.parent.then(_step(state, known, index)), known=known, evaluated=True)
            for index in range(count)
        )

    def tell(
        self, state: RolloverState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> RolloverState:
        """Take the step if a child beats the best score so far or the quota is spent."""
        told = advance_pass(state, proposals, candidates)
        top = max(candidates, key=base.score_of)  # the first of equals
        leader = base.Scored(recipe=top.recipe, score=base.score_of(top))
        if leader.recipe.finished:
            return told.model_copy(update={"parent": None, "best": None, "child": None})
        if state.parent is None:
            _, share = _plan(state)
            return told.model_copy(update={"parent": leader.recipe, "best": leader, "share": share, "quota": share})
        assert state.best is not None
        child = leader if state.child is None or leader.score > state.child.score else state.child
        quota = state.quota - sum(proposal.nfe for proposal in proposals)
        spent = quota < _unit(state)
        beaten = leader.score > state.best.score and len(state.parent.ops) < state.sampling.steps - 2
        if spent or beaten:
            told = told.model_copy(update={"parent": child.recipe, "quota": quota + state.share, "child": None})
        else:
            told = told.model_copy(update={"quota": quota, "child": child})
        return told.model_copy(update={"best": leader if leader.score > state.best.score else state.best})


def _plan(state: RolloverState) -> tuple[int, int]:
    """Start noises of the next pass, and NFE of each step; 0 NFE if not two children a step fit."""
    options, sampling = state.options, state.sampling
    steps, unit, room = sampling.steps - 1, _unit(state), state.room(1)
    if steps < 1:
        return 0, 0
    starts = min(options.starts, max(1, room // 20))
    last = state.fresh(0).then(_step(state, steps - 1, 0))
    end = sampling.cost(last.then(sampling.to_end(last.time)), 1, evaluated=True)
    share = min(options.quota, (room - starts - end) // steps)
    return (starts, share) if share >= min(2 * unit, max(unit, options.quota)) else (0, 0)


def _unit(state: RolloverState) -> int:
    """NFE of a child: the step from a state whose field is known, and its data prediction."""
    return state.sampling.cost(state.fresh(0).then(_step(state, 0, 0)), 0, evaluated=True)


def _step(state: RolloverState, step: int, index: int) -> Integrate:
    """Step number `step`, with a noise of its own."""
    return Integrate(to=state.sampling.time(step + 1), steps=1, round=state.round, index=index)
