"""What every registered algorithm must hold to; a new one is found by itself."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.errors import BudgetTooSmall, SearchError
from workers.jobs.schemas import Candidate, GenerateRequest
from workers.search import ALGORITHMS
from workers.search.base import Allowance, Proposal, State
from workers.search.run import SearchRun

EACH = pytest.mark.parametrize("name", sorted(ALGORITHMS))
STEPS, EVALUATIONS_PER_STEP = 4, 2
NFE = STEPS * EVALUATIONS_PER_STEP


def evaluate(proposals: tuple[Proposal, ...], phase: str = "search") -> list[Candidate]:
    """A toy landscape: a candidate's score is a function of its recipe alone."""
    return [
        Candidate(
            id=p.id,
            recipe=p.recipe,
            steps=p.steps,
            nfe=p.steps * EVALUATIONS_PER_STEP,
            forwards=2 * p.steps * EVALUATIONS_PER_STEP,
            scores={"toy": random.Random(p.recipe.model_dump_json()).gauss(0, 1)},
            phase=phase,
        )
        for p in proposals
    ]


def request(name: str, **changes: object) -> GenerateRequest:
    fields = {
        "condition": {"class": 0},
        "budget": {"nfe": 10 * NFE},
        "verifier": "toy",
        "search": {"algorithm": name},
        "sampler": {"steps": STEPS},
        "seed": 5,
    }
    return GenerateRequest.model_validate(fields | changes)


def states(name: str, candidates: int, seed: int = 5) -> list[State]:
    """Every state of a search from its start to its end."""
    search = ALGORITHMS[name]
    state = search.init(Allowance(candidates=candidates, steps=STEPS, seed=seed), search.Options())
    found = [state]
    while proposals := search.ask(state):
        state = search.tell(state, evaluate(proposals))
        found.append(state)
    return found


def finish(run: SearchRun) -> SearchRun:
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
    return run


@EACH
def test_ask_has_no_effect(name: str) -> None:
    search = ALGORITHMS[name]
    for state in states(name, 40):
        before = state.model_dump_json()
        assert search.ask(state) == search.ask(state)
        assert state.model_dump_json() == before


@EACH
def test_a_state_that_went_through_json_has_the_same_future(name: str) -> None:
    search = ALGORITHMS[name]
    for state in states(name, 40):
        assert search.ask(search.State.model_validate_json(state.model_dump_json())) == search.ask(state)


@EACH
def test_proposals_depend_on_the_seed_alone(name: str) -> None:
    search = ALGORITHMS[name]
    assert states(name, 40) == states(name, 40)
    assert search.ask(states(name, 40, seed=1)[0]) != search.ask(states(name, 40, seed=2)[0])


@EACH
def test_misuse_is_refused_with_what_was_asked_and_told(name: str) -> None:
    search = ALGORITHMS[name]
    state = states(name, 40)[0]
    told = evaluate(search.ask(state))
    with pytest.raises(SearchError, match=f"told {len(told) - 1} candidates for {len(told)} proposals"):
        search.tell(state, told[:-1])
    with pytest.raises(SearchError, match="was asked for"):
        search.tell(state, told[::-1])


@EACH
@settings(max_examples=60, deadline=None)
@given(
    nfe=st.integers(1, 1000 * NFE),
    forwards=st.none() | st.integers(1, 2000 * NFE),
    images=st.integers(1, 5),
    final_steps=st.none() | st.integers(1, 20),
)
def test_a_budget_is_never_exceeded_and_used_as_planned(
    name: str, nfe: int, forwards: int | None, images: int, final_steps: int | None
) -> None:
    sampler = {"steps": STEPS, "final_steps": final_steps}
    asked = request(name, budget={"nfe": nfe, "forwards": forwards}, num_images=images, sampler=sampler)
    try:
        run = SearchRun(asked, EVALUATIONS_PER_STEP)
    except BudgetTooSmall as error:
        assert getattr(asked.budget, error.unit) < error.least
        return
    finish(run)
    assert run.progress.nfe_spent <= nfe
    assert forwards is None or run.progress.forwards_spent <= forwards
    plan, result = run.plan, run.result()
    assert run.usage.nfe_search == plan.candidate.nfe * plan.candidates == result.candidates * NFE
    assert run.usage.nfe_final == (plan.final.nfe * plan.finals if plan.final else 0)
    assert len(result.images) == images


@EACH
def test_the_smallest_budget_works_and_one_less_is_refused(name: str) -> None:
    assert finish(SearchRun(request(name, budget={"nfe": NFE}), EVALUATIONS_PER_STEP)).result().candidates == 1
    with pytest.raises(BudgetTooSmall, match=f"at least {NFE}"):
        SearchRun(request(name, budget={"nfe": NFE - 1}), EVALUATIONS_PER_STEP)


@EACH
@pytest.mark.parametrize("candidates", [1, 2, 17, 1000])
def test_the_best_so_far_never_falls(name: str, candidates: int) -> None:
    run = finish(SearchRun(request(name, budget={"nfe": candidates * NFE}), EVALUATIONS_PER_STEP))
    scores = [point.score for point in run.progress.curve]
    assert scores == sorted(scores) and scores[-1] == run.progress.best_score == run.result().images[0].score


@EACH
def test_replaying_any_prefix_of_the_log_leads_to_the_same_end(name: str) -> None:
    asked = request(name, budget={"nfe": 60 * NFE}, num_images=3, sampler={"steps": STEPS, "final_steps": 7})
    run, log = SearchRun(asked, EVALUATIONS_PER_STEP), []
    while proposals := run.ask():
        log.append(run.tell(evaluate(proposals, run.phase)))
    for length in range(len(log) + 1):
        again = SearchRun(asked, EVALUATIONS_PER_STEP)
        again.replay(log[:length])
        finish(again)
        assert (again.result(), again.progress, again.usage) == (run.result(), run.progress, run.usage)
