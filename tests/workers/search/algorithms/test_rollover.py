"""Rollover budget forcing."""

from __future__ import annotations

import math
from collections.abc import Callable

from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.algorithms.rollover import QUOTA_CAP, RolloverOptions, RolloverState
from sitsearch.workers.search.base import remembered
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain, gauss
from tests.workers.search.algorithms.spending import passes, spending
from tests.workers.search.toy import evaluate, first_state, request, rugged, states

SEARCH = ALGORITHMS["rollover"]
STEPS = 5
STEPS_20 = 19  # of twenty steps, those that have children


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
    search = {"algorithm": "rollover", "starts": 1, "quota": 50}
    assert states(request("rollover", nfe=2 * (1 + 4 * 50), search=search))[-1].finished == 2


def test_beyond_the_cap_there_are_equal_passes_that_leave_nothing() -> None:
    full = STEPS_20 * QUOTA_CAP
    for nfe in (full // 3, 2 * full, 5 * full - 7):
        spent, plain = spending("rollover", nfe)
        assert max(spent) - min(spent) <= 2 and max(spent) <= 1.2 * full
        assert len(spent) == max(1, round(nfe / full)) and sum(spent) + plain > nfe - 20


def test_a_given_quota_is_obeyed() -> None:
    assert passes("rollover", 1000, quota=20, starts=1)[:2] == [1 + STEPS_20 * 20] * 2


def test_the_plan_says_what_the_first_pass_does() -> None:
    for nfe in (100, 1000, 7680):
        state = first_state(request("rollover", nfe=nfe, sampler={"steps": 20}))
        chosen = SEARCH.chosen(state.allowance, RolloverOptions())
        proposals = SEARCH.ask(state)
        assert chosen["starts"] == len(proposals)
        after = SEARCH.tell(state, proposals, evaluate(proposals))
        assert isinstance(after, RolloverState) and after.quota == chosen["quota"]
    assert SEARCH.chosen(state.allowance, RolloverOptions(quota=7, starts=2)) == {}
    small = first_state(request("rollover", nfe=35, sampler={"steps": 20}))
    assert SEARCH.chosen(small.allowance, RolloverOptions()) == {"passes": "none fits: random search"}
    assert SEARCH.ask(small)[0].recipe.finished


def luck(recipe: Recipe) -> float:
    """The start noise decides, and what a step does is a little more of it."""
    steps = sum(gauss("step", op.round, op.index) for op in recipe.ops if isinstance(op, Integrate) and op.to < 1)
    return gauss("start", recipe.round, recipe.index) + 0.3 * steps


def test_a_threshold_leaves_easy_steps_early_and_so_makes_more_samples() -> None:
    best, threshold = (passes("rollover", 7680, accept=accept, score=luck) for accept in ("best", "threshold"))
    assert len(threshold) > 2 * len(best)
    assert sum(threshold) > 0.8 * 7680


def test_a_threshold_is_the_quantile_of_what_earlier_passes_saw_at_that_step() -> None:
    search = {"algorithm": "rollover", "accept": "threshold", "quantile": 0.5, "quota": 12, "starts": 1, "batch": 1}
    state = first_state(request("rollover", nfe=4000, search=search))
    seen: dict[int, list[list[float]]] = {}
    early = 0
    while proposals := SEARCH.ask(state):
        assert isinstance(state, RolloverState)
        told = evaluate(proposals)
        after = SEARCH.tell(state, proposals, told)
        assert isinstance(after, RolloverState)
        if state.parent is not None and not proposals[0].recipe.finished:
            step, score = len(state.parent.ops), told[0].scores["toy"]
            if state.tried == ():
                seen.setdefault(step, []).append([])
            before = [one for scores in seen[step][:-1] for one in scores[:8]][-32:]
            if len(before) >= 8:
                passed = score >= sorted(before)[math.ceil((len(before) - 1) / 2)]
                assert (after.tried == ()) == (passed or state.quota == 1)
                early += passed and state.quota > 1
            seen[step][-1].append(score)
        state = after
    assert early > 50


def test_thresholds_are_remembered_in_a_form_that_an_ensemble_brings_up_to_date() -> None:
    search = {"algorithm": "rollover", "accept": "threshold"}
    last = states(request("rollover", nfe=3000, search=search))[-1]
    assert isinstance(last, RolloverState)
    assert {len(scores) for scores in last.seen} == {32} and len(remembered(last)) >= 4 * 32


def test_it_finds_better_than_random_search_where_previews_tell() -> None:
    assert gain("rollover") > 3
