"""Threshold backtracking."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Integrate, Recipe, Renoise
from sitsearch.workers.search.algorithms.backtracking import (
    WINDOW,
    BacktrackingOptions,
    BacktrackingState,
    Marks,
    opened,
)
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain
from tests.workers.search.toy import evaluate, first_state, request, rugged

SEARCH = ALGORITHMS["backtracking"]
EULER = {"sampler": {"method": "euler", "steps": 8}}  # marks after steps 2, 4 and 6


def first(nfe: int = 400, **options: object) -> BacktrackingState:
    """The state before the first round."""
    state = first_state(request("backtracking", nfe=nfe, search={"algorithm": "backtracking", **options}, **EULER))
    assert isinstance(state, BacktrackingState)
    return state


def play(state: BacktrackingState, score: Callable[[Recipe], float] = rugged) -> list[BacktrackingState]:
    """Every state to the end."""
    found = [state]
    while proposals := SEARCH.ask(state):
        state = SEARCH.tell(state, proposals, evaluate(proposals, score=score))
        found.append(state)
    return found


def proposed(found: list[BacktrackingState]) -> list[Proposal]:
    """All that was proposed."""
    return [proposal for state in found for proposal in SEARCH.ask(state)]


def test_what_is_good_enough_at_once_goes_straight_to_the_end_and_costs_a_plain_trajectory() -> None:
    found = play(first(nfe=80, thresholds=[-10, -10, -10], batch=2, tries=2), lambda _: 0.0)
    assert found[-1].finished == 10 and found[-1].spent == 80
    for state in found[:5]:
        assert [p.nfe for p in SEARCH.ask(state)] == [(3, 2, 2, 1)[state.round % 4]] * 2


def test_below_the_first_threshold_a_trajectory_begins_anew_from_fresh_noise() -> None:
    state = first(thresholds=[10, -10, -10], batch=1, tries=3)
    starts = [SEARCH.ask(s)[0] for s in play(state)[:3]]
    assert len({(p.recipe.round, p.recipe.index) for p in starts}) == 3
    assert all(p.recipe.ops[-1].steps == 2 and len(p.recipe.ops) == 1 and p.nfe == 3 for p in starts)


def test_below_a_later_threshold_noise_is_put_back_and_the_way_to_the_mark_is_tried_again() -> None:
    found = play(first(thresholds=[-10, 10, -10], batch=1, tries=3, depth=0.125), lambda _: 0.0)
    moves = [SEARCH.ask(state)[0] for state in found[:6]]
    assert [[op.op for op in p.recipe.ops[p.known :]] for p in moves] == [
        ["integrate"],
        ["integrate"],
        ["renoise", "integrate"],
        ["renoise", "integrate"],
        ["integrate"],
        ["integrate"],
    ]
    back, again = moves[2].recipe.ops[2:]
    assert isinstance(back, Renoise) and isinstance(again, Integrate)
    assert (back.to, again.to, again.steps, moves[2].nfe) == (pytest.approx(3 / 8), pytest.approx(0.5), 1, 2)
    assert moves[2].recipe.ops[:2] == moves[3].recipe.ops[:2] == moves[1].recipe.ops, "equals do not take the lead"


def test_a_retry_goes_back_from_the_best_try_and_the_best_try_goes_on() -> None:
    found = play(first(thresholds=[-10, 10, -10], batch=1, tries=6))
    moves = [SEARCH.ask(state)[0] for state in found[:8]]
    tries = [p.recipe for p in moves[1:7]]
    for count, move in enumerate(moves[2:8], start=1):
        assert move.recipe.prefix(move.known) == max(tries[:count], key=rugged)
    assert moves[7].recipe.time == 0.75
    assert len({len(recipe.ops) for recipe in tries}) > 1, "the lead changed"


def test_a_try_that_reaches_the_threshold_goes_on_at_once() -> None:
    found = play(first(thresholds=[-10, 0.5, -10], batch=1, tries=100, nfe=4000))
    for state in found:
        for line in state.lines:
            (move,) = SEARCH.ask(state)
            below = line.best.recipe.time == 0.5 and line.best.score < 0.5
            assert isinstance(move.recipe.ops[move.known], Renoise) == below


def test_trajectories_go_on_by_themselves_and_others_begin_as_they_end() -> None:
    found = play(first(nfe=4000, batch=4))
    assert {len(SEARCH.ask(state)) for state in found[:30]} == {4}
    assert any(len({p.recipe.time for p in SEARCH.ask(state)}) > 2 for state in found)


def test_a_mark_s_threshold_is_a_quantile_of_the_scores_seen_there() -> None:
    state = first()
    marks = Marks(opened(state.allowance, BacktrackingOptions(accept=0.25)), state.sampling)
    assert marks.threshold(0, (3.0, 2.0, 1.0)) == float("-inf"), "too few to compare with"
    assert marks.threshold(0, (3.0, 2.0, 1.0, 4.0)) == 4.0
    assert marks.threshold(1, tuple(float(i) for i in range(100))) == 75.0
    given = Marks(opened(state.allowance, BacktrackingOptions(thresholds=(0.1, 0.2, 0.3))), state.sampling)
    assert [given.threshold(place, ()) for place in range(3)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("accept", [0.5, 0.25, 0.125])
def test_as_many_are_good_enough_as_are_to_be_accepted(accept: float) -> None:
    found = play(first(nfe=8000, accept=accept, tries=1000))
    moves = [p for p in proposed(found) if 0.5 < p.recipe.time <= 0.75]
    onward = sum(not isinstance(p.recipe.ops[p.known], Renoise) for p in moves)
    assert 0.7 * accept < onward / len(moves) < 1.3 * accept


def test_marks_remember_the_latest_scores() -> None:
    state = play(first(nfe=6000))[-1]
    assert [len(seen) for seen in state.seen] == [WINDOW] * 3
    assert len(state.model_dump_json()) < 30_000


def test_marks_finer_than_steps_are_one_and_the_last_threshold_holds() -> None:
    sampling = first().sampling
    options = BacktrackingOptions(marks=(0.01, 0.24, 0.26, 0.99), thresholds=(1.0, 2.0, 3.0, 4.0))
    marks = Marks(opened(first().allowance, options), sampling)
    assert (marks.steps, len(marks), marks.threshold(0, ())) == ([2, 8], 1, 3.0)


def test_a_larger_budget_accepts_fewer_and_tries_more_often() -> None:
    for nfe, accept, tries in ((8, 0.5, 4), (200, 0.2, 10), (800, 0.1, 20), (80_000, 0.01, 200)):
        state = first(nfe=nfe)
        assert SEARCH.chosen(state.allowance, state.options) == {"accept": accept, "tries": tries}
    for options, expected in (
        ({"accept": 0.25}, {"tries": 8}),
        ({"tries": 7}, {"accept": 0.1414}),
        ({"accept": 0.5, "tries": 2}, {}),
        ({"thresholds": [0, 0, 0], "tries": 2}, {}),
    ):
        state = first(**options)
        assert SEARCH.chosen(state.allowance, state.options) == expected


def test_where_nothing_is_ever_good_enough_the_budget_still_ends_in_images() -> None:
    for nfe in (8, 24, 100, 1000):
        state = play(first(nfe=nfe, thresholds=[99, 99, 99], tries=1000))[-1]
        assert state.finished >= 1 and state.left < state.sampling.whole and not state.lines


def test_retries_leave_enough_for_every_image_that_is_wanted() -> None:
    options = {"thresholds": [99, 99, 99], "tries": 1000, "batch": 1}
    for nfe in range(40, 80):
        asked = request("backtracking", nfe=nfe, num_images=5, search={"algorithm": "backtracking", **options}, **EULER)
        state = first_state(asked)
        assert isinstance(state, BacktrackingState)
        assert play(state)[-1].finished >= 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marks": [0.5, 0.25]}, "`marks` must ascend between 0 and 1"),
        ({"marks": [0.0, 0.25]}, "`marks` must ascend between 0 and 1"),
        ({"thresholds": [1.0, 2.0]}, "`thresholds` must be as many as `marks`, 3, not 2"),
    ],
)
def test_options_that_do_not_agree_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BacktrackingOptions.model_validate(options)


def test_it_finds_better_than_random_search_where_previews_tell() -> None:
    assert gain("backtracking", nfe=640) > 3
