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

The scaling axis is the quota: it is what the budget gives each step. It ends where passes stop gaining; what the budget
has beyond that goes to further passes, all of them equal.

`accept: "threshold"` is Verifier-Threshold (arXiv 2512.08985, as far as its abstract tells): a step is left as soon as
a child's score passes a threshold of that step, the last scored one too, and what a pass does not need goes to further
passes. The threshold is a quantile of what earlier passes saw at that step; until they saw enough, it is the best score
so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.passes import NO_PASS, PassState, advance_pass, least_plain

#: Passes are capped near where they stop gaining: at a quota of about so many children a step.
QUOTA_CAP = 50
#: Start noises take at most one of so many parts of a pass.
START_PARTS = 20
MOST_STARTS = 256
#: A threshold is learnt from scores of earlier passes at its step: from so many or more,
ENOUGH = 8
#: of one pass at most the first so many,
SEEN_OF_A_PASS = 8
#: and the last so many of all.
SEEN = 32


class RolloverOptions(base.Options):
    """Options of rollover budget forcing."""

    quota: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="most NFE that a step is given, besides what rolled over to it; none: what the budget buys",
    )
    starts: int | None = Field(
        None,
        ge=1,
        le=MOST_STARTS,
        description="start noises to choose from, at most a twentieth of a pass's NFE; none: a twentieth",
    )
    batch: int = Field(4, ge=1, le=256, description="children proposed together; the paper's algorithm is 1")
    accept: Literal["best", "threshold"] = Field(
        "best", description="what a child must beat to be taken at once: the best so far, or its step's threshold"
    )
    quantile: float = Field(0.75, ge=0, le=1, description="of a step's scores in earlier passes: its threshold")


class RolloverState(PassState):
    """A trajectory under way.

    Attributes:
        parent: the trajectory's start noise and the steps taken so far; None between passes.
        best: the best data prediction in this pass.
        pool: NFE that all steps of this pass are given together.
        quota: NFE that the step under way may still spend.
        tried: the best way yet of taking it; all ways, where thresholds are learnt.
        seen: scores of earlier passes by step, where thresholds are learnt.
    """

    options: RolloverOptions
    parent: Recipe | None = None
    best: base.Scored | None = None
    pool: int = 0
    quota: int = 0
    tried: tuple[base.Scored, ...] = ()
    seen: tuple[tuple[base.Scored, ...], ...] = ()


class Rollover:
    """Best child of every step, with a budget that goes where progress is hard."""

    name: ClassVar[str] = "rollover"
    title: ClassVar[str] = "Rollover budget forcing"
    reference: ClassVar[str] = "Kim et al. 2025, arXiv 2503.19385"
    stochastic: ClassVar[bool] = True
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    paper: ClassVar[Mapping[str, Any]] = {"quota": 50, "starts": 25, "batch": 1, "accept": "best"}
    Options: ClassVar[type[base.Options]] = RolloverOptions
    State: ClassVar[type[base.State]] = RolloverState

    def chosen(self, allowance: base.Allowance, options: RolloverOptions) -> Mapping[str, Any]:
        """The NFE that every step of the first pass is given, rounded down, and its start noises."""
        state = self.init(allowance, options)
        plan = _plan(state)
        found = {"quota": plan.pool // _steps(state) if plan.pool else 0, "starts": plan.starts}
        open_ones = {name: value for name, value in found.items() if getattr(options, name) is None}
        return NO_PASS if open_ones and not plan.pool else open_ones

    def least(self, allowance: base.Allowance, options: RolloverOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: RolloverOptions) -> RolloverState:
        """The state before the first pass."""
        return RolloverState(allowance=allowance, options=options)

    def ask(self, state: RolloverState) -> tuple[base.Proposal, ...]:
        """A batch of children, the last step, or the start noises of another trajectory."""
        if state.parent is None:
            plan = _plan(state)
            return tuple(state.propose(i, state.fresh(i)) for i in range(plan.starts)) if plan.pool else state.plain()
        known = len(state.parent.ops)
        if known == _steps(state):
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
        """Take the step if a child is accepted at once or the quota is spent."""
        told = advance_pass(state, proposals, candidates)
        scored = tuple(base.scored(c) for c in candidates)
        leader = _best(scored)
        if leader.recipe.finished:
            return told.model_copy(update={"parent": None, "best": None})
        if state.parent is None:
            pool = _plan(state).pool
            quota = _quota(state, pool, 0)
            return told.model_copy(update={"parent": leader.recipe, "best": leader, "pool": pool, "quota": quota})
        assert state.best is not None
        learns = state.options.accept == "threshold"
        tried = (*state.tried, *scored)
        step, quota = len(state.parent.ops), state.quota - sum(proposal.nfe for proposal in proposals)
        best = leader if leader.score > state.best.score else state.best
        if quota >= _unit(state) and not _accepted(state, step, leader.score):
            tried = tried if learns else (_best(tried),)
            return told.model_copy(update={"quota": quota, "tried": tried, "best": best})
        taken = {"parent": _best(tried).recipe, "quota": quota + _quota(state, state.pool, step + 1), "tried": ()}
        seen = _remember(state, step, tried) if learns else ()
        return told.model_copy(update={**taken, "best": best, "seen": seen})


class _Plan(NamedTuple):
    """A pass: its start noises, and the NFE that all its steps are given together; 0 if none fits."""

    starts: int
    pool: int


def _plan(state: RolloverState) -> _Plan:
    """The next pass; none if not two children a step fit."""
    options, sampling, steps = state.options, state.sampling, _steps(state)
    if steps < 1:
        return _Plan(0, 0)
    unit = _unit(state)
    last = state.fresh(0).then(_step(state, steps - 1, 0))
    end = sampling.cost(last.then(sampling.to_end(last.time)), 1, evaluated=True)
    if options.quota is None:
        most, least = steps * (QUOTA_CAP * unit), 2 * unit
        room = state.share((most + end) * START_PARTS // (START_PARTS - 1))
        most = room
    else:
        most, least = steps * options.quota, min(2 * unit, max(unit, options.quota))
        room = state.room(1)
    starts = min(options.starts or MOST_STARTS, max(1, room // START_PARTS))
    pool = min(most, room - starts - end)
    return _Plan(starts, pool) if pool >= steps * least else _Plan(0, 0)


def _quota(state: RolloverState, pool: int, step: int) -> int:
    """What step number `step` is given of `pool`: the same for all steps, but for rounding; after the last, nothing."""
    steps = _steps(state)
    return pool * (step + 1) // steps - pool * step // steps if step < steps else 0


def _accepted(state: RolloverState, step: int, score: float) -> bool:
    """A child of this score is taken at once."""
    assert state.best is not None
    beaten = score > state.best.score
    if state.options.accept == "best":
        return beaten and step < _steps(state) - 1  # the last scored step spends what is left
    seen = state.seen[step] if state.seen else ()
    if len(seen) < ENOUGH:
        return beaten
    ranked = sorted(member.score for member in seen)
    return score >= ranked[math.ceil(state.options.quantile * (len(ranked) - 1))]


def _remember(state: RolloverState, step: int, tried: tuple[base.Scored, ...]) -> tuple[tuple[base.Scored, ...], ...]:
    """What was seen, with this pass's first children at `step`."""
    seen = list(state.seen or ((),) * _steps(state))
    seen[step] = (*seen[step], *tried[:SEEN_OF_A_PASS])[-SEEN:]
    return tuple(seen)


def _best(scored: Sequence[base.Scored]) -> base.Scored:
    """The first of the best."""
    return max(scored, key=lambda member: member.score)


def _steps(state: RolloverState) -> int:
    """Steps that children are proposed for: all but the last."""
    return state.sampling.steps - 1


def _unit(state: RolloverState) -> int:
    """NFE of a child: the step from a state whose field is known, and its data prediction."""
    return state.sampling.cost(state.fresh(0).then(_step(state, 0, 0)), 0, evaluated=True)


def _step(state: RolloverState, step: int, index: int) -> Integrate:
    """Step number `step`, with a noise of its own."""
    return state.sampling.integrate(state.sampling.time(step + 1), 1, round=state.round, index=index)
