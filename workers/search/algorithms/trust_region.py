"""Trust-region search of start noises (TRS): around the best ones seen, in regions that grow with success.

Schweiger et al. 2026, arXiv 2603.14504, algorithm 1:

1. the first fifth of the budget goes to fresh noises n ~ N(0, I);
2. k regions of one size have the best k of them as centres, the best first;
3. a round's B proposals are shared out over the regions, each within its own;
4. a region whose proposals beat its centre three times in a row grows by half, one whose proposals fail three times in
   a row shrinks by as much; one that would shrink from the least size starts again at the first;
5. the centres become the best k of *all* candidates so far, wherever they came from; go on with 3.

Regions are places in that order: a region's size stays with its rank while centres come and go, as in the algorithm.

A departure. The paper's region is a box of side l: a proposal adds U(-l/2, l/2) to each coordinate of the centre with
probability p, drawn anew from U(0.1, 0.9), and so changes a subset of the dimensions. Here it is a cap of the sphere
that the centre lies on (see zero_order.py), so that a proposal keeps the centre's norm however often it is moved; every
step through the box adds to it. In d dimensions the box's proposals lie about l sqrt(p d / 12) from the centre, that is
at an angle of arctan(l sqrt(p / 12)) for a centre of norm sqrt(d). So size is an angle here, `radius`; a box of side l
answers to the radius l / sqrt(12); and the spread of p over the box's scales is that of the proposals' angles,
`radius` times U(1/3, 1). What has no counterpart are the masks: a cap's proposals change all dimensions.

And an addition: the round after a region started again, its share of the proposals is fresh noise. (In the algorithm
that region differs from others by its size alone, as its centre is then set like all others.)

The scaling axis is the number of rounds. Left open, proposals grow with the root of the budget, so that a larger one
buys more rounds as well as larger ones, and there is a region for every three of them. That is fewer of both than the
paper's 15 regions and 20 proposals for 400 candidates: where scores follow the noise, rounds count for more. The first
radius is larger than the paper's as well, whose counts of three leave a short search no time to grow.

Under an SDE the candidates of a centre share the noises of their way, so that they differ by their start alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import uniform

#: Decimals of a neighbour's cosine: machines that differ in the last bit of theirs propose the same.
PLACES = 9
#: The least angle of a proposal, as a share of its region's radius: about the root of the paper's least p.
LEAST_SHARE = 1 / 3
#: Fewest fresh noises at first, and most of them in a round.
FEWEST_FRESH, MOST_FRESH = 4, 256
#: Bounds of a round's proposals that a budget buys, and how many there are for a region.
FEWEST_PROPOSALS, MOST_PROPOSALS, FOR_REGION = 4, 32, 3


class TrustRegionOptions(base.Options):
    """Options of trust-region search; the angles are in radians."""

    regions: int | None = Field(
        None, ge=1, le=256, description="k, the regions; null: by the budget (paper: 15 for 400 candidates)"
    )
    proposals: int | None = Field(
        None, ge=1, le=1024, description="B, proposals of a round; null: by the budget (paper: 20 for 400 candidates)"
    )
    warmup: float = Field(0.2, ge=0, le=1, description="share of the candidates that are fresh noise, at first")
    radius: float = Field(
        0.4, gt=0, le=math.pi / 2, description="first size of a region, an angle (paper: 0.231, a side of 0.8)"
    )
    least_radius: float = Field(0.0144, gt=0, le=math.pi / 2, description="least size (paper: a side of 0.05)")
    most_radius: float = Field(0.693, gt=0, le=math.pi / 2, description="greatest size (paper: a side of 2.4)")
    growth: float = Field(1.5, ge=1, le=10, description="by how much a region grows or shrinks")
    successes: int = Field(3, ge=1, le=100, description="rounds with a gain in a row after which it grows")
    failures: int = Field(3, ge=1, le=100, description="rounds without in a row after which it shrinks")

    @model_validator(mode="after")
    def _agree(self) -> TrustRegionOptions:
        if not self.least_radius <= self.radius <= self.most_radius:
            raise ValueError("`radius` must be between `least_radius` and `most_radius`")
        if self.regions and self.proposals and self.regions > self.proposals:
            raise ValueError(f"`regions` must be at most `proposals`, {self.proposals}: each region proposes")
        return self


class Region(Schema):
    """A trust region.

    Attributes:
        center: the candidate in its middle.
        radius: the largest angle between the centre and a proposal, in radians.
        successes, failures: rounds in a row with and without a gain, since the size last changed.
        restarted: it shrank below the least size in the last round.
    """

    center: base.Scored
    radius: float
    successes: int = 0
    failures: int = 0
    restarted: bool = False

    def of_size(self, radius: float, *, restarted: bool = False) -> Region:
        """The region at another size, where counting begins anew."""
        return Region(center=self.center, radius=radius, restarted=restarted)


class TrustRegionState(base.State):
    """A search under way.

    Attributes:
        regions: the centres are the best candidates so far, best first; fewer than k before k candidates were told.
        fresh_told: fresh noises of the warm-up that were told.
    """

    options: TrustRegionOptions
    regions: tuple[Region, ...] = ()
    fresh_told: int = 0


class TrustRegionSearch:
    """k regions around the best k noises so far, each of which grows with success and shrinks without."""

    name: ClassVar[str] = "trust_region"
    title: ClassVar[str] = "Trust-region noise search (TRS)"
    reference: ClassVar[str] = "Schweiger et al. 2026, arXiv 2603.14504"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {
        "regions": 15,
        "proposals": 20,
        "warmup": 0.2,
        "radius": 0.231,
        "least_radius": 0.0144,
        "most_radius": 0.693,
        "growth": 1.5,
        "successes": 3,
        "failures": 3,
    }
    Options: ClassVar[type[base.Options]] = TrustRegionOptions
    State: ClassVar[type[base.State]] = TrustRegionState

    def chosen(self, allowance: base.Allowance, options: TrustRegionOptions) -> Mapping[str, Any]:
        """`regions` and `proposals`, if they are open."""
        sizes = _sizes(allowance, options)
        return {
            name: size
            for name, size in (("regions", sizes.regions), ("proposals", sizes.proposals))
            if getattr(options, name) is None
        }

    def least(self, allowance: base.Allowance, options: TrustRegionOptions) -> int:
        """As many candidates as are wanted: all are finished images."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: TrustRegionOptions) -> TrustRegionState:
        """The state before the warm-up."""
        return TrustRegionState(allowance=allowance, options=options)

    def ask(self, state: TrustRegionState) -> tuple[base.Proposal, ...]:
        """Fresh noises while the warm-up lasts, then a round's proposals around the centres."""
        fits, proposals = state.left // state.sampling.whole, _sizes(state.allowance, state.options).proposals
        if lacking := _lacking(state):
            return tuple(
                state.propose(index, _finished(state, state.fresh(index)))
                for index in range(min(lacking, MOST_FRESH, fits))
            )
        return tuple(
            state.propose(index, _finished(state, _noise(state, state.regions[owner], index)))
            for index, owner in enumerate(_owners(len(state.regions), min(proposals, fits)))
        )

    def tell(
        self, state: TrustRegionState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> TrustRegionState:
        """Adapt the regions to what their proposals scored; the best candidates so far become their centres."""
        told = base.advance(state, proposals, candidates)
        new = [base.scored(c) for c in candidates]
        regions = state.regions
        if _lacking(state):
            told = told.model_copy(update={"fresh_told": state.fresh_told + len(new)})
        else:
            owned: list[list[float]] = [[] for _ in regions]
            for owner, scored in zip(_owners(len(regions), len(new)), new, strict=True):
                owned[owner].append(scored.score)
            regions = tuple(
                _adapted(state.options, region, gained=max(scores) > region.center.score) if scores else region
                for region, scores in zip(regions, owned, strict=True)
            )
        # The centres were the best of all before, so that the best of all are among them and what is new.
        pool = sorted([*(region.center for region in regions), *new], key=lambda scored: -scored.score)  # stable
        count = min(len(pool), _sizes(state.allowance, state.options).regions)
        added = (Region(center=scored, radius=state.options.radius) for scored in pool[len(regions) : count])
        moved = (region.model_copy(update={"center": scored}) for region, scored in zip(regions, pool, strict=False))
        return told.model_copy(update={"regions": (*moved, *added)[:count]})


class _Sizes(NamedTuple):
    """What a budget comes to: fresh noises of the warm-up, regions, and proposals of a round."""

    warmup: int
    regions: int
    proposals: int


def _sizes(allowance: base.Allowance, options: TrustRegionOptions) -> _Sizes:
    candidates = allowance.nfe // allowance.sampling.whole
    bought = min(MOST_PROPOSALS, max(FEWEST_PROPOSALS, round(math.sqrt(candidates) / 2)))
    proposals = options.proposals or max(bought, options.regions or 1)
    regions = options.regions or max(1, proposals // FOR_REGION)
    return _Sizes(max(FEWEST_FRESH, round(options.warmup * candidates)), regions, proposals)


def _lacking(state: TrustRegionState) -> int:
    """Fresh noises that the warm-up still lacks; an extended budget lacks some again."""
    return max(0, _sizes(state.allowance, state.options).warmup - state.fresh_told)


def _owners(regions: int, proposals: int) -> tuple[int, ...]:
    """Which region each proposal of a round is of: all of as many, but that the first have those left over."""
    return tuple(sorted(index % regions for index in range(proposals)))


def _adapted(options: TrustRegionOptions, region: Region, *, gained: bool) -> Region:
    """The region after a round of proposals of which the best beat its centre, or did not."""
    if region.restarted:
        return region.model_copy(update={"restarted": False})
    successes, failures = (region.successes + 1, 0) if gained else (0, region.failures + 1)
    if successes == options.successes:
        return region.of_size(min(options.most_radius, region.radius * options.growth))
    if failures < options.failures:
        return region.model_copy(update={"successes": successes, "failures": failures})
    if region.radius > options.least_radius:
        return region.of_size(max(options.least_radius, region.radius / options.growth))
    return region.of_size(options.radius, restarted=True)


def _noise(state: TrustRegionState, region: Region, index: int) -> Recipe:
    """Proposal `index` of the round: around the region's centre, or fresh where it started again."""
    if region.restarted:
        return state.fresh(index)
    share = LEAST_SHARE + (1 - LEAST_SHARE) * uniform(state.allowance.seed, state.round, index)
    cosine = round(math.cos(share * region.radius), PLACES)
    return region.center.recipe.noise.then(Neighbor(round=state.round, index=index, cosine=cosine))


def _finished(state: TrustRegionState, noise: Recipe) -> Recipe:
    """The noise integrated to the end with the draws of the fresh noise that it comes from."""
    return noise.then(state.sampling.to_end(round=noise.round, index=noise.index))
