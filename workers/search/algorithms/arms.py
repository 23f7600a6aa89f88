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
from sitsearch.workers.search.algorithms.random_search import RandomSearch, RandomState
from sitsearch.workers.search.algorithms.revisit import (
    MOST_GENERATIONS,
    RevisitSearch,
    RevisitState,
    generations,
)
from sitsearch.workers.search.algorithms.rollover import Rollover, RolloverState
from sitsearch.workers.search.algorithms.successive_halving import HalvingState, SuccessiveHalving
from sitsearch.workers.search.draws import uniform
from sitsearch.workers.search.sampling import Sampling

ArmName = Literal[
    "guided", "guided_particles", "guided_rollover", "random", "rollover", "particles", "halving", "revisit"
]

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

    @property
    def gradients_left(self) -> int:
        """Gradients of a verifier that it may still take, at most: one an evaluation."""
        return self.left if self.state.sampling.guide is not None else 0

    def ask(self) -> tuple[base.Proposal, ...]:
        """What it wants next; nothing once it is over."""
        return self.search.ask(self.state)

    def tell(self, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> Any:
        """The pass after that; the candidates may have other ids."""
        own = [c.model_copy(update={"id": p.id}) for p, c in zip(proposals, candidates, strict=True)]
        found = [base.scored(c) for c in own if c.recipe.finished]
        best = max([*([self.best] if self.best else []), *found], key=lambda scored: scored.score, default=None)
        return self.model_copy(update={"state": self.search.tell(self.state, proposals, own), "best": best})


class RandomPass(_Pass):
    """Of random search, by draws of its own."""

    search: ClassVar[base.Search[Any]] = RandomSearch()
    arm: Literal["random", "guided"]
    state: RandomState


class RolloverPass(_Pass):
    """Of rollover budget forcing."""

    search: ClassVar[base.Search[Any]] = Rollover()
    arm: Literal["rollover", "guided_rollover"]
    state: RolloverState


class FunnelPass(_Pass):
    """Of Feynman-Kac steering."""

    search: ClassVar[base.Search[Any]] = FkSteering()
    arm: Literal["particles", "guided_particles"]
    state: FkState


class HalvingPass(_Pass):
    """Of successive halving."""

    search: ClassVar[base.Search[Any]] = SuccessiveHalving()
    arm: Literal["halving"]
    state: HalvingState


class RevisitPass(_Pass):
    """Of revisiting the best candidate so far."""

    search: ClassVar[base.Search[Any]] = RevisitSearch()
    arm: Literal["revisit"]
    state: RevisitState


Pass = Annotated[RandomPass | RolloverPass | FunnelPass | HalvingPass | RevisitPass, Field(discriminator="arm")]


@dataclass(frozen=True)
class Arm:
    """What an arm is.

    Attributes:
        kind: of its passes.
        prior: what a pass gains on random search of the same NFE, in standard deviations of the scores.
        method: the sampling method that it needs; None is the request's own.
        around: its passes begin at the best candidates so far, and are guided if these were.
        guided: its trajectories follow a verifier's gradient.
        options: of its search, where they are not the defaults.
    """

    kind: type[Any]
    prior: float
    method: str | None = None
    around: bool = False
    guided: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


ARMS: dict[ArmName, Arm] = {
    "guided": Arm(RandomPass, 2.4, method="glass", guided=True),
    "guided_particles": Arm(FunnelPass, 2.8, method="glass", guided=True),
    "guided_rollover": Arm(RolloverPass, 2.6, method="glass", guided=True),
    "random": Arm(RandomPass, 0.0),
    "rollover": Arm(RolloverPass, 1.0, method="glass"),
    "particles": Arm(FunnelPass, 0.7, method="glass"),
    "halving": Arm(HalvingPass, 0.4),
    "revisit": Arm(RevisitPass, 0.6, around=True, options={"restart_after": None}),
}


def can_be_had(name: ArmName, allowance: base.Allowance) -> bool:
    """Whether what an arm needs is there, but for a candidate to begin around."""
    arm = ARMS[name]
    return arm.around or allowance.by(arm.method or allowance.sampling.method.name, guided=arm.guided) is not None


def sampling_of(arm: Arm, allowance: base.Allowance, best: base.Scored | None) -> Sampling | None:
    """How passes of an arm are sampled; None if that cannot be had, or if there is no candidate to begin around.

    One of as many generations as there may be is none.
    """
    if not arm.around:
        return allowance.by(arm.method or allowance.sampling.method.name, guided=arm.guided)
    if best is None or generations(best.recipe) >= MOST_GENERATIONS:
        return None
    return allowance.of(best.recipe)


def begun(
    name: ArmName,
    allowance: base.Allowance,
    number: int,
    nfe: int,
    best: base.Scored | None,
    gradients: int | None = None,
) -> Pass | None:
    """A pass of an arm before its first round; None if the arm cannot begin one now.

    Args:
        name: of the arm.
        allowance: the whole search's.
        number: of the pass, counted from 0 over all arms.
        nfe: what it may spend.
        best: the best finished candidate so far.
        gradients: of a verifier, that it may take; None is any number.
    """
    arm = ARMS[name]
    sampling = sampling_of(arm, allowance, best)
    if sampling is None or (sampling.guide is not None and gradients is not None and gradients < nfe):
        return None
    seed = int(uniform(allowance.seed, SEEDS, number) * 2**53)
    own = base.Allowance(seed=seed, nfe=nfe, keep=1, sampling=sampling)
    state = arm.kind.search.init(own, arm.kind.search.Options.model_validate(arm.options))
    if arm.around:
        # its draws are named by the candidate's own seed, so that its rounds must be no other pass's
        state = state.model_copy(update={"parent": best, "round": (number + 1) * ROUNDS_OF_A_PASS})
    made: Pass = arm.kind(arm=name, state=state)
    return made
