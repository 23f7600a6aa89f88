"""Zero-order search."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Integrate, Neighbor, Recipe
from sitsearch.workers.search.algorithms.zero_order import ZeroOrderOptions, ZeroOrderState
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.toy import allowance_of, evaluate, finish, first_state, request, start, states

SEARCH = ALGORITHMS["zero_order"]
PAPER = {"algorithm": "zero_order", "preset": "paper"}


def first(nfe: int = 400, **options: object) -> ZeroOrderState:
    """The state before the first pivot of the paper's walk, but for `options`; a candidate takes 10 NFE."""
    options = {"preset": "paper"} | options
    state = first_state(request("zero_order", nfe=nfe, search={"algorithm": "zero_order", **options}))
    assert isinstance(state, ZeroOrderState)
    return state


def tell(state: ZeroOrderState, *scores: float) -> ZeroOrderState:
    """The state after a round with these scores."""
    given = iter(scores)
    told = SEARCH.tell(state, SEARCH.ask(state), evaluate(SEARCH.ask(state), score=lambda _: next(given)))
    assert isinstance(told, ZeroOrderState)
    return told


def chain(recipe: Recipe) -> list[tuple[int, int]]:
    """Round and index of the neighbours that led to a candidate's noise."""
    return [(op.round, op.index) for op in recipe.ops if isinstance(op, Neighbor)]


def test_it_starts_with_one_noise_and_goes_on_with_n_neighbours_of_it() -> None:
    state = first()
    (pivot,) = SEARCH.ask(state)
    assert pivot.recipe == Recipe(seed=5, round=0, index=0).then(Integrate(to=1.0, steps=5))
    neighbors = SEARCH.ask(tell(state, 0.0))
    assert [p.recipe.noise for p in neighbors] == [
        pivot.recipe.noise.then(Neighbor(round=1, index=index, cosine=0.95)) for index in range(4)
    ]


def test_the_best_neighbour_becomes_the_pivot_only_if_it_beats_the_score_the_pivot_has() -> None:
    moved = tell(tell(first(), 0.5), 0.1, 0.7, 0.9, 0.9)
    assert [chain(p.recipe) for p in SEARCH.ask(moved)] == [[(1, 2), (2, i)] for i in range(4)]
    stayed = tell(moved, 0.9, 0.8, -1.0, 0.0)  # an equal does not beat it
    assert [chain(p.recipe) for p in SEARCH.ask(stayed)] == [[(1, 2), (3, i)] for i in range(4)]
    assert stayed.pivot is not None and stayed.pivot.score == 0.9


def test_without_restarts_a_walk_goes_on_for_ever() -> None:
    state = tell(first(nfe=4000), 1.0)
    for _ in range(20):
        state = tell(state, 0.0, 0.0, 0.0, 0.0)
    assert all(len(chain(p.recipe)) == 1 for p in SEARCH.ask(state))


def test_after_rounds_without_gain_it_restarts_from_fresh_noises_and_keeps_what_it_had() -> None:
    state = tell(tell(first(restart_after=2), 1.0), 0.0, 0.0, 0.0, 0.0)
    state = tell(tell(state, 2.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0, 0.0)  # a gain starts the count again
    assert all(chain(p.recipe) for p in SEARCH.ask(state))
    state = tell(state, 0.0, 0.0, 0.0, 0.0)
    fresh = SEARCH.ask(state)
    assert [p.recipe.noise for p in fresh] == [Recipe(seed=5, round=5, index=index) for index in range(4)]
    state = tell(state, 0.0, 0.3, 0.1, 0.0)  # below the old pivot, yet the new walk's
    assert [p.recipe.noise.prefix(0) for p in SEARCH.ask(state)] == [fresh[1].recipe.noise] * 4


def test_the_best_of_all_walks_is_the_result() -> None:
    found: dict[Recipe, float] = {}

    def score(recipe: Recipe) -> float:
        """The first walk ends at 9; no later one comes so far."""
        return found.setdefault(recipe, min(len(found), 9) if recipe.round == 0 else -1.0)

    run = start(request("zero_order", nfe=600, search=PAPER | {"restart_after": 1}))
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase, score))
    assert len({recipe.round for recipe in found}) > 2
    assert run.result().images[0].score == 9 and run.result().images[0].candidate.recipe.round == 0


def test_the_last_round_is_cut_to_what_fits() -> None:
    run = start(request("zero_order", nfe=79, search=PAPER))
    sizes = []
    while proposals := run.ask():
        sizes.append(len(proposals))
        run.tell(evaluate(proposals))
    assert sizes == [1, 4, 2]


def test_under_an_sde_a_walk_changes_the_start_noise_alone() -> None:
    asked = request("zero_order", sampler={"method": "euler_maruyama"}, search=PAPER)
    draws = {op for state in states(asked) for p in SEARCH.ask(state) for op in p.recipe.ops if op.op == "integrate"}
    assert len(draws) == 1


def cosines(state: ZeroOrderState) -> set[float]:
    """Of the neighbours that are asked for next, with their pivot."""
    return {op.cosine for p in SEARCH.ask(state) for op in p.recipe.noise.ops[-1:] if isinstance(op, Neighbor)}


def test_a_walk_begins_at_the_best_of_its_starts() -> None:
    state = first(starts=3)
    fresh = SEARCH.ask(state)
    assert [p.recipe.noise for p in fresh] == [Recipe(seed=5, round=0, index=index) for index in range(3)]
    state = tell(state, 0.0, 0.2, 0.1)
    assert [p.recipe.noise.prefix(0) for p in SEARCH.ask(state)] == [fresh[1].recipe.noise] * 4


def test_an_adaptive_step_grows_by_half_after_a_gain_and_shrinks_to_seven_tenths_without() -> None:
    state = tell(first(step="adaptive"), 0.0)
    angle = math.acos(0.95)
    assert cosines(state) == {0.95}
    for score, factor in ((1.0, 1.5), (0.0, 0.7), (0.0, 0.7), (2.0, 1.5)):
        state, angle = tell(state, score, 0.0, 0.0, 0.0), factor * angle
        assert cosines(state) == {round(math.cos(angle), 9)}


def test_an_adaptive_step_stays_within_bounds() -> None:
    better = worse = tell(first(nfe=4000, step="adaptive"), 0.0)
    for score in range(1, 20):
        better, worse = tell(better, score, 0, 0, 0), tell(worse, -1, -1, -1, -1)
    assert (better.angle, worse.angle) == (math.pi / 2, 0.05)
    beyond = tell(tell(first(step="adaptive", cosine=-0.5), 0.0), 1.0, 0.0, 0.0, 0.0)
    assert beyond.angle == math.acos(-0.5)


def test_a_restart_begins_at_the_first_step_again() -> None:
    state = tell(tell(first(step="adaptive", restart_after=1), 0.0), 1.0, 0.0, 0.0, 0.0)
    assert cosines(state) != {0.95}
    state = tell(tell(state, 0.0, 0.0, 0.0, 0.0), 0.5, 0.0, 0.0, 0.0)
    assert cosines(state) == {0.95}


def test_a_fixed_step_stays() -> None:
    state = tell(first(), 0.0)
    for score in (1.0, 0.0, 2.0):
        state = tell(state, score, 0.0, 0.0, 0.0)
        assert cosines(state) == {0.95}


@pytest.mark.parametrize(
    ("candidates", "chosen"), [(1, (1, 2)), (5, (1, 2)), (24, (6, 3)), (100, (25, 5)), (10_000, (256, 32))]
)
def test_what_is_open_is_what_the_budget_buys(candidates: int, chosen: tuple[int, int]) -> None:
    allowance = allowance_of(request("zero_order", nfe=10 * candidates))
    options = ZeroOrderOptions()
    assert SEARCH.chosen(allowance, options) == dict(zip(("starts", "neighbors"), chosen, strict=True))
    assert SEARCH.chosen(allowance, ZeroOrderOptions(starts=1)).keys() == {"neighbors"}
    assert SEARCH.chosen(allowance, ZeroOrderOptions.model_validate(SEARCH.paper)) == {}
    sizes = [len(SEARCH.ask(state)) for state in states(request("zero_order", nfe=10 * candidates))]
    assert sizes[0] == chosen[0] and all(size == chosen[1] for size in sizes[1:-2]) and sum(sizes) == candidates


@pytest.mark.parametrize(
    "option",
    [
        {"neighbors": 0},
        {"cosine": 1.0},
        {"cosine": -1.0},
        {"starts": 0},
        {"step": "large"},
        {"restart_after": 0},
    ],
)
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(option))):
        first(**option)


def test_wanted_images_are_the_best_of_pivots_and_neighbours() -> None:
    result = finish(start(request("zero_order", num_images=3))).result()
    assert len({image.candidate.recipe for image in result.images}) == 3
