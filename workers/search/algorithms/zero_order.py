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

Three options go beyond the paper; its preset does without them. The walk begins at the best of `starts` fresh noises,
so that it does not climb from a poor one. The distance is adaptive: the angle between pivot and neighbour grows by half
after a gain and shrinks to 0.7 of itself without one, which balances where about every second round gains. A walk can
come to rest where no neighbour is better; `restart_after` then begins another, and what the first one found still
competes, as the best of all walks is what is kept.

The scaling axis is the number of rounds. Left open, a quarter of the candidates that the budget buys are fresh noises,
and the others form about four times as many rounds as each has neighbours: both grow with the budget's root.

Under an SDE all candidates of a walk share the noises of their way from its first noise on, so that their scores differ
by their start alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from sitsearch.workers.search import base

#: Decimals of a neighbour's cosine: machines that differ in the last bit of theirs propose the same.
PLACES = 9
#: By how much the angle changes after a gain and without one, and between which angles (radians) it stays.
GROWTH, SHRINKAGE = 1.5, 0.7
LEAST_ANGLE, MOST_ANGLE = 0.05, math.pi / 2
#: Share of the candidates that are fresh, and bounds of what a budget buys.
STARTS, MOST_STARTS = 0.25, 256
FEWEST_NEIGHBORS, MOST_NEIGHBORS = 2, 32


class ZeroOrderOptions(base.Options):
    """Options of zero-order search."""

    neighbors: int | None = Field(
        None, ge=1, le=256, description="N, neighbours of the pivot that a round tries; null: by the budget (paper: 4)"
    )
    cosine: float = Field(
        0.95,
        gt=-1,
        lt=1,
        description="c, between pivot and neighbour, the first if steps adapt; lambda is sqrt(2 - 2c) pivot norms",
    )
    starts: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="fresh noises, the best of which is the first pivot; null: by the budget (paper: 1)",
    )
    step: Literal["fixed", "adaptive"] = Field(
        "adaptive", description="whether the distance stays as it is, as in the paper, or follows the gains"
    )
    restart_after: int | None = Field(
        None, ge=1, description="rounds without gain after which N fresh noises are tried; null: never, as in the paper"
    )


class ZeroOrderState(base.State):
    """A walk under way.

    Attributes:
        pivot: the best candidate of this walk; None before a walk.
        idle: rounds since it was found.
        angle: between pivot and neighbours, in radians.
    """

    options: ZeroOrderOptions
    pivot: base.Scored | None = None
    idle: int = 0
    angle: float


class ZeroOrderSearch:
    """Moves to the best of N neighbours, as long as that is better."""

    name: ClassVar[str] = "zero_order"
    title: ClassVar[str] = "Zero-order search (ZO-N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {
        "neighbors": 4,
        "cosine": 0.95,
        "starts": 1,
        "step": "fixed",
        "restart_after": None,
    }
    Options: ClassVar[type[base.Options]] = ZeroOrderOptions
    State: ClassVar[type[base.State]] = ZeroOrderState

    def chosen(self, allowance: base.Allowance, options: ZeroOrderOptions) -> Mapping[str, Any]:
        """`starts` and `neighbors`, if they are open."""
        starts, neighbors = _sizes(allowance, options)
        sizes = {"starts": starts, "neighbors": neighbors}
        return {name: size for name, size in sizes.items() if getattr(options, name) is None}

    def least(self, allowance: base.Allowance, options: ZeroOrderOptions) -> int:
        """As many candidates as are wanted: pivot and neighbours alike are finished images."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: ZeroOrderOptions) -> ZeroOrderState:
        """The state before the first pivot."""
        return ZeroOrderState(allowance=allowance, options=options, angle=math.acos(options.cosine))

    def ask(self, state: ZeroOrderState) -> tuple[base.Proposal, ...]:
        """The first pivots; after that N neighbours of the best, or N fresh noises where the walk begins anew."""
        starts, neighbors = _sizes(state.allowance, state.options)
        count = min(neighbors if state.round else starts, state.left // state.sampling.whole)
        return tuple(state.propose(index, _candidate(state, index)) for index in range(count))

    def tell(
        self, state: ZeroOrderState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> ZeroOrderState:
        """Move the pivot to the round's best if that is better, and the distance with it."""
        told = base.advance(state, proposals, candidates)
        best = max(candidates, key=base.score_of)  # the first of equals
        if state.pivot is None or base.score_of(best) > state.pivot.score:
            pivot = base.scored(best)
            angle = state.angle if state.pivot is None else _bounded(state, GROWTH)
            return told.model_copy(update={"pivot": pivot, "idle": 0, "angle": angle})
        idle = state.idle + 1
        if idle == state.options.restart_after:
            return told.model_copy(update={"pivot": None, "idle": 0, "angle": math.acos(state.options.cosine)})
        return told.model_copy(update={"idle": idle, "angle": _bounded(state, SHRINKAGE)})


def _sizes(allowance: base.Allowance, options: ZeroOrderOptions) -> tuple[int, int]:
    """Fresh noises of the first round, and neighbours of a later one."""
    candidates = allowance.nfe // allowance.sampling.whole
    starts = options.starts or min(MOST_STARTS, max(1, int(STARTS * candidates)))
    left = max(1, candidates - starts)
    rounds = round(2 * math.sqrt(left))
    neighbors = options.neighbors or min(MOST_NEIGHBORS, max(FEWEST_NEIGHBORS, math.ceil(left / rounds)))
    return starts, neighbors


def _bounded(state: ZeroOrderState, factor: float) -> float:
    """The angle, changed by `factor` if steps adapt; a first angle beyond the bounds is one itself."""
    if state.options.step == "fixed":
        return state.angle
    first = math.acos(state.options.cosine)
    return min(max(MOST_ANGLE, first), max(min(LEAST_ANGLE, first), factor * state.angle))


def _candidate(state: ZeroOrderState, index: int) -> Recipe:
    """Noise `index` of the round, integrated to the end with the draws of its walk's first noise."""
    if state.pivot is None:
        noise = state.fresh(index)
    else:
        cosine = round(math.cos(state.angle), PLACES)
        noise = state.pivot.recipe.noise.then(Neighbor(round=state.round, index=index, cosine=cosine))
    return noise.then(state.sampling.to_end(round=noise.round, index=noise.index))
