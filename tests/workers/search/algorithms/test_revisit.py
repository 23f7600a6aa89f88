"""Revisiting: whose children are made, where noise goes back to, and what it finds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Integrate, Renoise
from sitsearch.workers.search.algorithms.revisit import MOST_GENERATIONS, RevisitOptions, RevisitState
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain
from tests.workers.search.toy import allowance_of, evaluate, first_state, request, states

REVISIT = ALGORITHMS["revisit"]
SAMPLER = {"method": "euler", "steps": 10}


def asked(nfe: int = 400, **options: object):  # type: ignore[no-untyped-def]
    return request("revisit", nfe=nfe, sampler=SAMPLER, search={"algorithm": "revisit", **options})


def test_a_round_puts_noise_back_into_the_best_image_so_far() -> None:
    state = first_state(asked(starts=3))
    fresh = REVISIT.ask(state)
    assert [p.recipe.finished for p in fresh] == [True] * 3 and {p.nfe for p in fresh} == {10}
    told = evaluate(fresh)
    state = REVISIT.tell(state, fresh, told)
    best = max(told, key=lambda c: c.scores["toy"])
    for time, nfe in ((0.2, 8), (0.4, 6)):
        assert isinstance(state, RevisitState) and state.parent is not None
        children = REVISIT.ask(state)
        assert len(children) == 4
        for child in children:
            back, on = child.recipe.ops[-2:]
            assert isinstance(back, Renoise) and back.to == time and isinstance(on, Integrate) and on.to == 1
            assert child.recipe.prefix(child.known) == best.recipe and child.nfe == nfe
        told = evaluate(children)
        state = REVISIT.tell(state, children, told)
        best = max([best, *told], key=lambda c: c.scores["toy"])


def test_a_walk_without_gain_is_given_up_for_another() -> None:
    walks = 0
    for state in states(asked(nfe=4000, restart_after=2)):
        assert isinstance(state, RevisitState) and state.idle < 2
        walks += state.parent is None
    assert walks > 2


def test_recipes_do_not_grow_without_end() -> None:
    search, state = REVISIT, first_state(asked(nfe=20_000))
    longest = 0
    while proposals := search.ask(state):
        longest = max(longest, *(len(p.recipe.ops) for p in proposals))
        told = evaluate(proposals, score=lambda recipe: float(len(recipe.ops)))  # every generation is better
        state = search.tell(state, proposals, told)
    assert longest == 1 + 2 * MOST_GENERATIONS


def test_it_finds_more_than_random_search_where_children_take_after_their_parent() -> None:
    assert gain("revisit") > 3


def test_the_budget_says_how_many_a_walk_begins_with() -> None:
    for nfe, starts in ((100, 2), (400, 10), (10_000, 64)):
        assert REVISIT.chosen(allowance_of(asked(nfe)), RevisitOptions()) == {"starts": starts}
        assert len(REVISIT.ask(first_state(asked(nfe)))) == starts


@pytest.mark.parametrize("time", [0.0, 1.0, -0.5])
def test_times_at_which_nothing_could_be_put_back_are_refused(time: float) -> None:
    with pytest.raises(ValidationError, match="`times` must be between 0 and 1"):
        RevisitOptions(times=(0.5, time))
