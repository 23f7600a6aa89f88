"""The automatic search: its share of random search, its passes, and what its bandit learns."""

from __future__ import annotations

import math

import pytest

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.algorithms.arms import ARMS
from sitsearch.workers.search.algorithms.auto import AutoState
from sitsearch.workers.search.algorithms.revisit import MOST_GENERATIONS, generations
from sitsearch.workers.search.base import remembered, rescored
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.toy import allowance_of, evaluate, finish, first_state, request, rugged, start, states

AUTO = ALGORITHMS["auto"]
SAMPLER = {"method": "euler", "steps": 20, "inner": 1}


def told(asked, score=rugged):  # type: ignore[no-untyped-def]
    """Every candidate of a search, in order, with its score."""
    run, found = start(asked), []
    while proposals := run.ask():
        candidates = evaluate(proposals, run.phase, score)
        run.tell(candidates)
        found += candidates
    return run, found


@pytest.mark.parametrize("nfe", [60, 200, 1000, 8000])
@pytest.mark.parametrize("share", [0.0, 0.125, 0.5, 1.0])
def test_its_share_of_random_search_is_what_random_search_draws_first(nfe: int, share: float) -> None:
    _, found = told(request("auto", nfe=nfe, sampler=SAMPLER, search={"algorithm": "auto", "share": share}))
    _, plain = told(request("random", nfe=nfe, sampler=SAMPLER))
    drawn = [c.recipe for c in found if c.recipe.seed == 5]
    fresh = [recipe for recipe in drawn if len(recipe.ops) == 1 and recipe.method is None]
    assert fresh == [c.recipe for c in plain][: len(fresh)]
    assert len(fresh) >= int(share * nfe / 20)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_never_worse_than_random_search_of_its_share(seed: int) -> None:
    run, _ = told(request("auto", nfe=1600, sampler=SAMPLER, seed=seed, search={"algorithm": "auto", "share": 0.25}))
    plain, _ = told(request("random", nfe=400, sampler=SAMPLER, seed=seed))
    assert run.progress.best_score >= plain.progress.best_score


@pytest.mark.parametrize("seed", range(3))
def test_the_winner_is_the_best_of_all_that_was_finished(seed: int) -> None:
    """Descendants of one noise are different images where the recipe names a stochastic method."""
    run, found = told(request("auto", nfe=500, sampler=SAMPLER, seed=seed))
    best = max(c.scores["toy"] for c in found if c.recipe.finished)
    assert run.result().images[0].score == best == run.progress.best_score


def test_random_candidates_keep_step_with_what_passes_take() -> None:
    for state in states(request("auto", nfe=8000, sampler=SAMPLER)):
        assert isinstance(state, AutoState)
        assert state.drawn * 20 >= math.floor(0.125 * state.spent) - 20


def test_a_budget_of_a_few_images_has_one_pass_and_a_large_one_several_at_once() -> None:
    at_once = {
        nfe: max(len(state.passes) for state in states(request("auto", nfe=nfe, sampler=SAMPLER)))  # type: ignore[attr-defined]
        for nfe in (20, 100)
    }
    assert at_once == {20: 0, 100: 1}
    asked = request("auto", nfe=80_000, sampler=SAMPLER)
    first = AUTO.ask(first_state(asked))
    assert len({proposal.recipe.seed for proposal in first}) == 1 + 4, "random search and four passes"


def better_by(method: str | None, gain: float):  # type: ignore[no-untyped-def]
    """White noise, but what one method makes is better."""

    def score(recipe: Recipe) -> float:
        return rugged(recipe) + gain * (recipe.method == method and recipe.seed != 5)

    return score


def test_the_arm_that_finds_more_gets_more_passes() -> None:
    arms = {"algorithm": "auto", "arms": ["halving", "particles"], "priors": {"halving": 0.5, "particles": 0.5}}
    passes = {}
    for name, method in (("halving", None), ("particles", "glass")):
        asked = request("auto", nfe=20_000, sampler=SAMPLER, search=arms)
        search, state = AUTO, states(asked)[0]
        while proposals := search.ask(state):
            state = search.tell(state, proposals, evaluate(proposals, score=better_by(method, 5.0)))
        passes[name] = {tried.arm: tried.passes for tried in state.tried}
    assert passes["halving"]["halving"] > passes["halving"]["particles"]
    assert passes["particles"]["particles"] > passes["particles"]["halving"]


def test_the_first_pass_is_of_the_arm_with_the_greatest_prior() -> None:
    for name in ("random", "particles", "halving"):
        options = {"algorithm": "auto", "priors": {name: 9.0}}
        state = states(request("auto", nfe=200, sampler=SAMPLER, search=options))[1]
        assert isinstance(state, AutoState)
        first = [part.arm for part in state.passes] + [tried.arm for tried in state.tried]
        assert first == [name]


def test_without_stochastic_methods_it_does_without_their_arms() -> None:
    asked = request("auto", nfe=4000, sampler=SAMPLER | {"final_steps": 30})
    run, found = told(asked)
    assert {c.recipe.method for c in found} == {None}
    assert run.progress.nfe_spent <= 4000 and run.result().images[0].candidate.phase == "final"


def test_no_two_passes_draw_the_same_noise() -> None:
    _, found = told(request("auto", nfe=20_000, sampler=SAMPLER))
    recipes = [c.recipe for c in found]
    assert len(set(recipes)) == len(recipes)
    assert len({recipe.seed for recipe in recipes}) > 3


def test_a_plan_says_what_it_intends() -> None:
    asked = request("auto", nfe=960, sampler=SAMPLER)
    chosen = AUTO.chosen(allowance_of(asked), AUTO.Options())
    assert chosen["random candidates"] == 6 and chosen["first"] == ("rollover",)
    finish(start(asked))


def test_every_arm_can_be_begun() -> None:
    assert set(ARMS) == set(AUTO.Options().arms)


def test_what_is_begun_does_not_depend_on_when_scores_are_brought_up_to_date() -> None:
    """An ensemble's scores change when others are seen: between `ask` and `tell` too."""
    for state in states(request("auto", nfe=4000, sampler=SAMPLER)):
        changed = rescored(state, {recipe: -rugged(recipe) for recipe in remembered(state)})
        assert changed.tried == () or changed != state
        assert [(p.recipe, p.nfe) for p in AUTO.ask(changed)] == [(p.recipe, p.nfe) for p in AUTO.ask(state)]


@pytest.mark.parametrize("rule", ["rank", "zscore"])
@pytest.mark.parametrize("seed", range(6))
def test_an_ensemble_leaves_the_budget_a_hard_cap(rule: str, seed: int) -> None:
    ensemble = {"name": "ensemble", "members": ["one", "other"], "rule": rule}
    run = start(request("auto", nfe=3000, sampler=SAMPLER, seed=seed, verifier=ensemble))
    while proposals := run.ask():
        told = evaluate(proposals, run.phase)
        run.tell([c.model_copy(update={"scores": {"one": rugged(c.recipe), "other": len(c.id)}}) for c in told])
    assert 3000 - 20 < run.progress.nfe_spent <= 3000


def test_an_arm_whose_trajectories_are_beyond_a_pass_is_passed_over() -> None:
    for nfe, inner in ((1000, 16), (300, 8)):
        run, _ = told(request("auto", nfe=nfe, sampler=SAMPLER | {"inner": inner}, search={"algorithm": "auto"}))
        assert nfe - 20 < run.progress.nfe_spent <= nfe


def test_nothing_is_revisited_beyond_its_generations() -> None:
    options = {"algorithm": "auto", "arms": ["revisit", "random"], "priors": {"revisit": 9.0}}
    asked = request("auto", nfe=6000, sampler={"method": "euler", "steps": 4}, search=options)
    _, found = told(asked, score=lambda recipe: float(len(recipe.ops)))
    assert max(generations(c.recipe) for c in found) == MOST_GENERATIONS
