"""Trust-region search of start noises."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from sitsearch.workers.search.algorithms.trust_region import Region, TrustRegionOptions, TrustRegionState
from sitsearch.workers.search.base import Scored, extend
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.toy import allowance_of, evaluate, first_state, request, states

SEARCH = ALGORITHMS["trust_region"]
SMALL = {"regions": 2, "proposals": 5}


def first(nfe: int = 400, **options: object) -> TrustRegionState:
    """The state before the warm-up; a candidate takes 10 NFE."""
    state = first_state(request("trust_region", nfe=nfe, search={"algorithm": "trust_region", **SMALL, **options}))
    assert isinstance(state, TrustRegionState)
    return state


def tell(state: TrustRegionState, *scores: float) -> TrustRegionState:
    """The state after a round with these scores; those left out are -1."""
    proposals, given = SEARCH.ask(state), iter(scores)
    told = SEARCH.tell(state, proposals, evaluate(proposals, score=lambda _: next(given, -1.0)))
    assert isinstance(told, TrustRegionState)
    return told


def warm(**options: object) -> TrustRegionState:
    """The state after a warm-up of eight noises, of which number 3 scored 0.9 and number 5 scored 0.8."""
    return tell(first(**options), 0.0, 0.0, 0.0, 0.9, 0.0, 0.8, 0.0, 0.0)


def parents(state: TrustRegionState) -> list[Recipe]:
    """The noises around which the next round proposes."""
    return [p.recipe.noise.prefix(len(p.recipe.noise.ops) - 1) for p in SEARCH.ask(state)]


def angles(state: TrustRegionState) -> list[float]:
    """Between the next round's proposals and their centres."""
    return [
        math.acos(op.cosine) for p in SEARCH.ask(state) for op in p.recipe.noise.ops[-1:] if isinstance(op, Neighbor)
    ]


def region(state: TrustRegionState, place: int) -> Region:
    return state.regions[place]


def test_a_fifth_of_the_candidates_is_fresh_noise_first() -> None:
    assert [p.recipe.noise for p in SEARCH.ask(first())] == [Recipe(seed=5, round=0, index=i) for i in range(8)]
    assert not any(p.recipe.noise.ops for p in SEARCH.ask(first(warmup=1)))
    assert len(SEARCH.ask(first(warmup=0))) == 4  # a few, whatever is asked for


def test_a_long_warm_up_goes_in_rounds() -> None:
    found = states(request("trust_region", nfe=20_000))[:3]
    fresh = [sum(not p.recipe.noise.ops for p in SEARCH.ask(state)) for state in found]
    assert fresh == [256, 144, 0]


def test_the_best_are_the_centres_and_share_the_proposals_the_first_those_left_over() -> None:
    state = warm()
    best, second = Recipe(seed=5, round=0, index=3), Recipe(seed=5, round=0, index=5)
    assert parents(state) == [best] * 3 + [second] * 2


def test_proposals_lie_at_several_angles_up_to_the_radius() -> None:
    found = angles(warm(regions=1, proposals=30, radius=0.3))
    assert 0.1 - 1e-6 < min(found) < 0.15 and 0.25 < max(found) < 0.3 + 1e-6
    assert len(set(found)) == 30


def test_centres_become_the_best_of_all_wherever_they_came_from() -> None:
    state = tell(warm(), 0.95, 0.0, 0.0, 0.85, 1.0)  # the second region found the best
    proposals = SEARCH.ask(warm())
    assert [r.center.recipe for r in state.regions] == [proposals[4].recipe, proposals[0].recipe]
    state = tell(state, 0.5, 0.5, 0.5, 0.5, 0.96)
    assert [r.center.score for r in state.regions] == [1.0, 0.96]


def test_three_gains_in_a_row_let_a_region_grow_and_three_failures_let_it_shrink() -> None:
    state = warm(radius=0.2)
    for score in (1.0, 2.0):
        state = tell(state, score)
        assert [r.radius for r in state.regions] == [0.2, 0.2]
    state = tell(state, 3.0)
    assert region(state, 0).radius == pytest.approx(0.3) and region(state, 0).successes == 0
    assert region(state, 1).radius == pytest.approx(0.2 / 1.5) and region(state, 1).failures == 0


def test_a_gain_between_failures_starts_the_count_again() -> None:
    state = warm(regions=1)
    for score in (0.0, 0.0, 1.0, 1.0, 0.0):  # an equal is no gain
        state = tell(state, score)
    assert region(state, 0).radius == 0.4 and (region(state, 0).successes, region(state, 0).failures) == (0, 2)
    assert region(tell(state, 0.0), 0).radius == pytest.approx(0.4 / 1.5)


def test_a_region_grows_no_further_than_its_greatest_size() -> None:
    state = warm(regions=1, successes=1, radius=0.5, most_radius=0.6)
    for score in (1.0, 2.0, 3.0):
        state = tell(state, score)
    assert region(state, 0).radius == 0.6


def test_a_region_at_its_least_size_starts_again_with_a_round_of_fresh_noise() -> None:
    state = warm(failures=1, radius=0.3, least_radius=0.25)
    state = tell(state, -1, -1, -1, 0.85)  # only the first region fails
    assert [r.radius for r in state.regions] == [0.25, 0.3]
    state = tell(state, -1, -1, -1, 0.86)
    assert [(r.radius, r.restarted) for r in state.regions] == [(0.3, True), (0.3, False)]
    proposals = SEARCH.ask(state)
    assert [p.recipe.noise for p in proposals[:3]] == [Recipe(seed=5, round=3, index=index) for index in range(3)]
    assert all(p.recipe.noise.ops for p in proposals[3:])
    state = tell(state, 0.95)  # fresh noise can become a centre
    assert region(state, 0).center.recipe == proposals[0].recipe
    assert (region(state, 0).radius, region(state, 0).restarted) == (0.3, False)


def test_more_budget_brings_more_fresh_noise_and_keeps_the_regions() -> None:
    state = states(request("trust_region", nfe=400))[-1]
    assert isinstance(state, TrustRegionState)
    more = extend(state, 400)
    assert [p.recipe.noise.ops for p in SEARCH.ask(more)] == [()] * 8
    told = tell(more, *[-9.0] * 8)
    assert told.regions[: len(state.regions)] == state.regions and all(p.recipe.noise.ops for p in SEARCH.ask(told))


def test_regions_are_fewer_until_enough_were_seen() -> None:
    state = first(nfe=200, regions=5)
    assert len(SEARCH.ask(state)) == 4
    state = tell(state, 0.0, 0.0, 0.0, 0.0)
    assert len(state.regions) == 4
    assert len(tell(state, 1.0).regions) == 5


def test_under_an_sde_the_candidates_of_a_centre_share_the_noises_of_their_way() -> None:
    asked = request("trust_region", nfe=2000, sampler={"method": "euler_maruyama"})
    for state in states(asked):
        for p in SEARCH.ask(state):
            last = p.recipe.ops[-1]
            assert last.op == "integrate" and (last.round, last.index) == (p.recipe.round, p.recipe.index)


@pytest.mark.parametrize(
    ("candidates", "chosen"), [(1, (1, 4)), (24, (1, 4)), (400, (3, 10)), (1000, (5, 16)), (9000, (10, 32))]
)
def test_what_is_open_is_what_the_budget_buys(candidates: int, chosen: tuple[int, int]) -> None:
    allowance = allowance_of(request("trust_region", nfe=10 * candidates))
    options = TrustRegionOptions()
    assert SEARCH.chosen(allowance, options) == dict(zip(("regions", "proposals"), chosen, strict=True))
    assert SEARCH.chosen(allowance, TrustRegionOptions(regions=64)) == {"proposals": 64}
    assert SEARCH.chosen(allowance, TrustRegionOptions.model_validate(SEARCH.paper)) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regions": 0}, "regions"),
        ({"warmup": 1.1}, "warmup"),
        ({"radius": 0.0}, "radius"),
        ({"growth": 0.9}, "growth"),
        ({"regions": 6, "proposals": 5}, "`regions` must be at most `proposals`, 5"),
        ({"radius": 0.8}, "`radius` must be between `least_radius` and `most_radius`"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        first(**options)


def test_what_it_remembers_are_the_centres_alone() -> None:
    for state in states(request("trust_region", nfe=2000)):
        assert isinstance(state, TrustRegionState)
        best: list[Scored] = [r.center for r in state.regions]
        assert [s.score for s in best] == sorted((s.score for s in best), reverse=True) and len(best) <= 3
