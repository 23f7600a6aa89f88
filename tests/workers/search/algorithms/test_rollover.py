"""Rollover budget forcing."""

from __future__ import annotations

from collections.abc import Callable

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.algorithms.rollover import RolloverState
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain
from tests.workers.search.toy import evaluate, first_state, request, rugged, states

SEARCH = ALGORITHMS["rollover"]
STEPS = 5


def play(nfe: int, score: Callable[[Recipe], float], **options: object) -> dict[int, list[Recipe]]:
    """What the first pass proposes, by number of operations."""
    state = first_state(request("rollover", nfe=nfe, search={"algorithm": "rollover", **options}))
    steps: dict[int, list[Recipe]] = {}
    while not state.finished and (proposals := SEARCH.ask(state)):
        assert isinstance(state, RolloverState)
        for proposal in proposals:
            steps.setdefault(len(proposal.recipe.ops), []).append(proposal.recipe)
        state = SEARCH.tell(state, proposals, evaluate(proposals, score=score))
    return steps


def counts(steps: dict[int, list[Recipe]]) -> list[int]:
    """How many candidates each step had."""
    return [len(steps[i]) for i in range(STEPS + 1)]


def test_a_child_that_beats_the_best_is_taken_at_once_and_the_quota_rolls_over_to_the_last_step() -> None:
    """Every preview is better than those before it: one child a step, and all that was saved in the last."""
    steps = play(1 + 4 * 10, lambda recipe: float(len(recipe.ops)), batch=1, starts=1)
    assert counts(steps) == [1, 1, 1, 1, 4 * 10 - 3, 1]


def test_where_no_child_beats_the_best_every_step_spends_its_quota_and_takes_the_best_child() -> None:
    steps = play(1 + 4 * 10, lambda recipe: rugged(recipe) - 100 * len(recipe.ops), batch=1, starts=1)
    assert counts(steps) == [1, 10, 10, 10, 10, 1]
    for step in range(1, STEPS):
        best = max(steps[step], key=rugged)
        assert {recipe.prefix(step) for recipe in steps[step + 1]} == {best}


def test_a_batch_is_spent_whole_and_its_best_is_taken() -> None:
    steps = play(1 + 4 * 10, lambda recipe: len(recipe.ops) + rugged(recipe) / 100, batch=4, starts=1)
    assert counts(steps) == [1, 4, 4, 4, 4 * 10 - 12, 1]
    assert {recipe.prefix(1) for recipe in steps[2]} == {max(steps[1], key=rugged)}


def test_the_best_of_some_start_noises_begins_the_trajectory() -> None:
    steps = play(1000, rugged, starts=25, quota=20)
    assert len(steps[0]) == 25
    assert {recipe.prefix(0) for recipe in steps[1]} == {max(steps[0], key=rugged)}


def test_start_noises_take_no_more_than_a_twentieth() -> None:
    assert len(play(200, rugged)[0]) == 10


def test_children_cost_one_evaluation_and_the_last_step_none() -> None:
    for state in states(request("rollover", nfe=200)):
        if isinstance(state, RolloverState) and state.parent is not None:
            assert [p.nfe for p in SEARCH.ask(state)] == [not p.recipe.finished for p in SEARCH.ask(state)]


def test_what_is_beyond_the_full_quota_goes_to_another_pass() -> None:
    found = states(request("rollover", nfe=2 * (1 + 4 * 50), search={"algorithm": "rollover", "starts": 1}))
    assert found[-1].finished == 2


def test_it_finds_better_than_random_search_where_previews_tell() -> None:
    assert gain("rollover") > 3
