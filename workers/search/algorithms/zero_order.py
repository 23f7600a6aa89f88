"""Zero-order search: a walk from noise to better noise nearby.

Ma et al. 2025, arXiv 2501.09732, section 3.1 (ZO-N):

1. the pivot is a start noise n ~ N(0, I);
2. draw N neighbours of it at distance lambda;
3. integrate and score them;
4. the best becomes the pivot; go on with 2.

The pivot competes with the score it has, which costs nothing and makes the walk monotone. The paper gives no formula
for a neighbour; this one comes from its first author's reimplementation for FLUX. It keeps the norm of n, so that y
stays a plausible Gaussian draw in a high dimension: y = |n| (c u + sqrt(1 - c^2) w), u = n / |n|, w a random unit
vector orthogonal to u. So lambda = |n| sqrt(2 - 2c).

The scaling axis is the number of rounds. A walk can come to rest where no neighbour is better; `restart_after` (ours)
then begins another, and what the first one found still competes, as the best of all walks is what is kept.

Under an SDE all candidates of a walk share the noises of their way, so that their scores differ by their start alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from sitsearch.workers.search import base


class ZeroOrderOptions(base.Options):
    """Options of zero-order search."""

    neighbors: int = Field(4, ge=1, le=256, description="N, neighbours of the pivot that a round tries")
    cosine: float = Field(
        0.95, gt=-1, lt=1, description="c, between pivot and neighbour; lambda is sqrt(2 - 2c) times the pivot's norm"
    )
    restart_after: int | None = Field(
        None, ge=1, description="rounds without gain after which N fresh noises are tried; null: never, as in the paper"
    )


class ZeroOrderState(base.State):
    """A walk under way.

    Attributes:
        pivot: the best candidate of this walk; None before a walk.
        idle: rounds since it was found.
    """

    options: ZeroOrderOptions
    pivot: base.Scored | None = None
    idle: int = 0


class ZeroOrderSearch:
    """Moves to the best of N neighbours, as long as that is better."""

    name: ClassVar[str] = "zero_order"
    title: ClassVar[str] = "Zero-order search (ZO-N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = ZeroOrderOptions
    State: ClassVar[type[base.State]] = ZeroOrderState

    def chosen(self, allowance: base.Allowance, options: ZeroOrderOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: ZeroOrderOptions) -> int:
        """As many candidates as are wanted: pivot and neighbours alike are finished images."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: ZeroOrderOptions) -> ZeroOrderState:
        """The state before the first pivot."""
        return ZeroOrderState(allowance=allowance, options=options)

    def ask(self, state: ZeroOrderState) -> tuple[base.Proposal, ...]:
        """The first pivot; after that N neighbours of the pivot, or N fresh noises where the walk begins anew."""
        count = min(state.options.neighbors if state.round else 1, state.left // state.sampling.whole)
        return tuple(state.propose(index, _candidate(state, index)) for index in range(count))

    def tell(
        self, state: ZeroOrderState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> ZeroOrderState:
        """Move the pivot to the round's best if that is better."""
        told = base.advance(state, proposals, candidates)
        best = max(candidates, key=base.score_of)  # the first of equals
        if state.pivot is None or base.score_of(best) > state.pivot.score:
            pivot = base.Scored(recipe=best.recipe, score=base.score_of(best))
            return told.model_copy(update={"pivot": pivot, "idle": 0})
        idle = state.idle + 1
        if idle == state.options.restart_after:
            return told.model_copy(update={"pivot": None, "idle": 0})
        return told.model_copy(update={"idle": idle})


def _candidate(state: ZeroOrderState, index: int) -> Recipe:
    """Noise `index` of the round, integrated to the end with the draws of its walk's first noise."""
    if state.pivot is None:
        noise = state.fresh(index)
    else:
        noise = state.pivot.recipe.noise.then(Neighbor(round=state.round, index=index, cosine=state.options.cosine))
    return noise.then(state.sampling.to_end(round=noise.round, index=noise.index))
