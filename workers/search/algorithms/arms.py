"""The arms of the automatic search: passes of other searches, each with a budget, a seed and a state of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.search import base
from sitsearch.workers.search.algorithms.fk_steering import FkState, FkSteering
from sitsearch.workers.search.algorithms.rollover import Rollover, RolloverState
from sitsearch.workers.search.algorithms.successive_halving import HalvingState, SuccessiveHalving
from sitsearch.workers.search.algorithms.trust_region import (
    Region,
    TrustRegionOptions,
    TrustRegionSearch,
    TrustRegionState,
)
from sitsearch.workers.search.draws import uniform
from sitsearch.workers.search.sampling import Sampling

ArmName = Literal["particles", "rollover", "particles_dense", "halving", "region"]

#: Coarse trajectories have a fraction of the steps, and not fewer than these.
COARSER, LEAST_STEPS = 4, 4
#: Draws of the seeds of passes; the searches' own draws have rounds below it.
SEEDS = 2**40
#: Rounds of a pass around earlier candidates, which share their seed: no two passes draw the same neighbours.
ROUNDS_OF_A_PASS = 2**20


class _Pass(Schema):
    """A pass under way.

    Attributes:
        best: the best finished candidate that it found.
    """

    search: ClassVar[base.Search[Any]]
    arm: str
    state: base.State
    best: base.Scored | None = None

    @property
    def left(self) -> int:
        """NFE that it may still spend."""
        return self.state.left

    def ask(self) -> tuple[base.Proposal, ...]:
        """What it wants next; nothing once it is over."""
        return self.search.ask(self.state)

    def tell(self, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> Any:
        """The pass after that; the candidates may have other ids."""
        own = [c.model_copy(update={"id": p.id}) for p, c in zip(proposals, candidates, strict=True)]
        found = [base.Scored(recipe=c.recipe, score=base.score_of(c)) for c in own if c.recipe.finished]
        best = max([*([self.best] if self.best else []), *found], key=lambda scored: scored.score, default=None)
        return self.model_copy(update={"state": self.search.tell(self.state, proposals, own), "best": best})


class RolloverPass(_Pass):
    """Of rollover budget forcing."""

    search: ClassVar[base.Search[Any]] = Rollover()
    arm: Literal["rollover"]
    state: RolloverState


class FunnelPass(_Pass):
    """Of Feynman-Kac steering."""

    search: ClassVar[base.Search[Any]] = FkSteering()
    arm: Literal["particles", "particles_dense"]
    state: FkState


class HalvingPass(_Pass):
    """Of successive halving."""

    search: ClassVar[base.Search[Any]] = SuccessiveHalving()
    arm: Literal["halving"]
    state: HalvingState


class RegionPass(_Pass):
    """Of trust-region search around the best candidates so far."""

    search: ClassVar[base.Search[Any]] = TrustRegionSearch()
    arm: Literal["region"]
    state: TrustRegionState


Pass = Annotated[RolloverPass | FunnelPass | HalvingPass | RegionPass, Field(discriminator="arm")]


@dataclass(frozen=True)
class Arm:
    """What an arm is.

    Attributes:
        kind: of its passes.
        prior: what a pass gains on random search of the same NFE, in standard deviations of the scores.
        method: the sampling method that it needs; None is the request's own.
        coarse: it samples in `coarse` steps.
        around: its passes begin at the best candidates so far.
        options: of its search, where they are not the defaults.
    """

    kind: type[_Pass]
    prior: float
    method: str | None = None
    coarse: bool = False
    around: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


ARMS: dict[ArmName, Arm] = {
    "particles": Arm(FunnelPass, 1.0, method="euler_maruyama", coarse=True, options={"lam": 4.0}),
    "rollover": Arm(RolloverPass, 0.9, method="glass"),
    "particles_dense": Arm(FunnelPass, 0.6, method="glass", options={"lam": 4.0, "funnel": 0.5}),
    "halving": Arm(HalvingPass, 0.4),
    "region": Arm(RegionPass, 0.2, around=True),
}


def coarse(steps: int) -> int:
    """Steps of a trajectory that is sampled coarsely: a quarter of the request's, at least four."""
    return min(steps, max(LEAST_STEPS, round(steps / COARSER)))


def sampling_of(arm: Arm, allowance: base.Allowance) -> Sampling | None:
    """How passes of an arm are sampled; None if that cannot be had."""
    found = allowance.sampling if arm.method is None else allowance.by(arm.method)
    if found is None or not arm.coarse:
        return found
    return found.model_copy(update={"choice": found.choice.model_copy(update={"steps": coarse(found.choice.steps)})})


def open_arms(names: Sequence[ArmName], allowance: base.Allowance, best: Sequence[base.Scored]) -> tuple[ArmName, ...]:
    """Those of the arms that could begin a pass now."""
    return tuple(
        name for name in names if sampling_of(ARMS[name], allowance) is not None and (best or not ARMS[name].around)
    )


def begun(name: ArmName, allowance: base.Allowance, number: int, nfe: int, best: Sequence[base.Scored]) -> Any:
    """A pass of an arm before its first round.

    Args:
        name: of the arm, one of `open_arms`.
        allowance: the whole search's.
        number: of the pass, counted from 0 over all arms.
        nfe: what it may spend.
        best: candidates to begin around, best first.
    """
    arm = ARMS[name]
    sampling = sampling_of(arm, allowance)
    assert sampling is not None
    seed = int(uniform(allowance.seed, SEEDS, number) * 2**53)
    own = base.Allowance(seed=seed, nfe=nfe, keep=1, sampling=sampling)
    if arm.around:
        options = TrustRegionOptions(warmup=0.0)
        regions = tuple(Region(center=center, radius=options.radius) for center in best)
        state: base.State = TrustRegionState(
            allowance=own, options=options, round=(number + 1) * ROUNDS_OF_A_PASS, regions=regions, fresh_told=nfe
        )
    else:
        state = arm.kind.search.init(own, arm.kind.search.Options.model_validate(arm.options))
    return arm.kind(arm=name, state=state)
