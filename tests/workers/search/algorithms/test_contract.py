"""What every registered algorithm must hold to; a new one is found by itself."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sitsearch.workers.errors import BudgetTooSmall, SearchError, Unsuitable
from sitsearch.workers.jobs.job import Extension
from sitsearch.workers.jobs.recipe import Integrate, Neighbor, Recipe
from sitsearch.workers.search.base import extend
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.toy import METHODS, allowance_of, evaluate, finish, first_state, request, start, states

EACH = pytest.mark.parametrize("name", sorted(ALGORITHMS))


def least(name: str, **changes: object) -> int:
    """The smallest legal budget."""
    with pytest.raises(BudgetTooSmall) as refused:
        start(request(name, nfe=1, **changes))
    return refused.value.least


@EACH
def test_ask_has_no_effect(name: str) -> None:
    search = ALGORITHMS[name]
    for state in states(request(name)):
        before = state.model_dump_json()
        assert search.ask(state) == search.ask(state)
        assert state.model_dump_json() == before


@EACH
def test_a_state_that_went_through_json_has_the_same_future(name: str) -> None:
    search = ALGORITHMS[name]
    for state in states(request(name)):
        again = search.State.model_validate_json(state.model_dump_json())
        assert again == state
        while proposals := search.ask(state):
            assert search.ask(again) == proposals
            told = evaluate(proposals)
            state, again = search.tell(state, proposals, told), search.tell(again, proposals, told)
        assert search.ask(again) == ()


@EACH
def test_proposals_depend_on_the_seed_alone(name: str) -> None:
    assert states(request(name)) == states(request(name))
    search = ALGORITHMS[name]
    assert search.ask(first_state(request(name, seed=1))) != search.ask(first_state(request(name, seed=2)))


@EACH
def test_no_recipe_is_proposed_twice_and_ids_are_unique(name: str) -> None:
    search = ALGORITHMS[name]
    proposals = [p for state in states(request(name, nfe=3000)) for p in search.ask(state)]
    assert len({p.id for p in proposals}) == len(proposals)
    assert len({p.recipe for p in proposals}) == len(proposals)


@EACH
def test_what_a_proposal_builds_on_was_left_behind_by_an_earlier_one(name: str) -> None:
    """`known` operations end where an earlier proposal's integration or re-noising did; `evaluated` where one ended."""
    search = ALGORITHMS[name]
    at_hand, ends = set(), set()
    for state in states(request(name, nfe=3000)):
        proposals = search.ask(state)
        for p in proposals:
            start_ops = len(p.recipe.noise.ops)
            if p.known > start_ops:
                assert p.recipe.prefix(p.known) in at_hand
            if p.evaluated:
                assert p.recipe.prefix(p.known) in ends
            assert p.nfe == state.allowance.of(p.recipe).cost(p.recipe, p.known, evaluated=p.evaluated)
        for p in proposals:
            left = (p.recipe.prefix(k) for k in range(len(p.recipe.ops) + 1))
            at_hand |= {recipe for recipe in left if p.revisited or not recipe.finished}
            ends |= {p.recipe} if not p.recipe.finished else set()


@EACH
def test_misuse_is_refused_with_what_was_asked_and_told(name: str) -> None:
    search = ALGORITHMS[name]
    state = next(s for s in states(request(name)) if len(search.ask(s)) > 1)
    told = evaluate(search.ask(state))
    with pytest.raises(SearchError, match=f"told {len(told) - 1} candidates for {len(told)} proposals"):
        search.tell(state, search.ask(state), told[:-1])
    with pytest.raises(SearchError, match="was asked for"):
        search.tell(state, search.ask(state), told[::-1])


@EACH
@settings(max_examples=60, deadline=None)
@given(
    nfe=st.integers(1, 6000),
    forwards=st.none() | st.integers(1, 12_000),
    images=st.integers(1, 5),
    steps=st.integers(2, 12),
    method=st.sampled_from(sorted(METHODS)),
    final_steps=st.none() | st.integers(1, 20),
    shift=st.sampled_from([1.0, 3.0]),
)
def test_a_budget_is_never_exceeded_and_leaves_as_many_images_as_asked(
    name: str,
    nfe: int,
    forwards: int | None,
    images: int,
    steps: int,
    method: str,
    final_steps: int | None,
    shift: float,
) -> None:
    sampler = {"method": method, "steps": steps, "final_steps": final_steps, "shift": shift}
    asked = request(name, budget={"nfe": nfe, "forwards": forwards}, num_images=images, sampler=sampler)
    try:
        run = start(asked)
    except Unsuitable as error:
        stochastic = METHODS[method].stochastic
        assert error.field == ("sampler.final_steps" if stochastic else "sampler.method")
        return
    except BudgetTooSmall as error:
        assert getattr(asked.budget, error.unit) < error.least
        return
    finish(run)
    assert run.progress.nfe_spent <= nfe
    assert forwards is None or run.progress.forwards_spent <= forwards
    result = run.result()
    assert len(result.images) == images and all(image.candidate.recipe.finished for image in result.images)
    assert len({image.candidate.recipe for image in result.images}) == images


@EACH
def test_no_room_is_left_for_another_candidate(name: str) -> None:
    """An algorithm goes on, pass after pass, while another whole trajectory fits."""
    for nfe in (97, 400, 1234):
        state = states(request(name, nfe=max(nfe, least(name))))[-1]
        assert state.left < state.sampling.whole


@EACH
@pytest.mark.parametrize("images", [1, 3])
def test_the_smallest_budget_works_and_one_less_is_refused(name: str, images: int) -> None:
    smallest = least(name, num_images=images)
    assert len(finish(start(request(name, nfe=smallest, num_images=images))).result().images) == images
    with pytest.raises(BudgetTooSmall, match=f"at least {smallest}"):
        start(request(name, nfe=smallest - 1, num_images=images))


@EACH
@pytest.mark.parametrize("candidates", [1, 2, 17, 1000])
def test_the_best_so_far_never_falls(name: str, candidates: int) -> None:
    asked = request(name)
    budget = max(candidates * allowance_of(asked).sampling.whole, least(name))
    run = finish(start(request(name, nfe=budget)))
    scores = [point.score for point in run.progress.curve]
    assert scores == sorted(scores) and scores[-1] == run.progress.best_score == run.result().images[0].score


@EACH
def test_what_is_spent_does_not_depend_on_the_scores_where_the_algorithm_says_so(name: str) -> None:
    spent = set()
    for sign in (0, 1, -1):
        run = start(request(name, nfe=1234))
        while proposals := run.ask():
            run.tell(evaluate(proposals, run.phase, score=lambda r, sign=sign: sign * float(len(r.model_dump_json()))))
        spent.add((run.usage.nfe_search, run.rounds))
    assert not ALGORITHMS[name].exact or len(spent) == 1


@EACH
def test_replaying_any_prefix_of_the_log_leads_to_the_same_end(name: str) -> None:
    finals = {} if ALGORITHMS[name].stochastic else {"sampler": {"final_steps": 7}}
    asked = request(name, nfe=800, num_images=3, **finals)
    run, log = start(asked), []
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        run.seal()
        log.append(run.log())
    for length in range(0, len(log) + 1, max(1, len(log) // 20)):
        again = start(asked)
        again.replay(log[:length])
        finish(again)
        assert (again.result(), again.progress, again.usage) == (run.result(), run.progress, run.usage)


@EACH
def test_an_extended_search_goes_on_from_its_state_and_replays_to_the_same_end(name: str) -> None:
    asked = request(name, nfe=max(300, least(name)))
    run, log = start(asked), []
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        run.seal()
        log.append(run.log())
    before, extension = run.progress, Extension(after_round=run.rounds, nfe=200)
    run.extend(extension.nfe)
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        run.seal()
        log.append(run.log())
    assert run.progress.curve[: len(before.curve) - 1] == before.curve[:-1], "its last point may have moved on"
    assert before.nfe_spent < run.progress.nfe_spent <= run.progress.nfe_budget == before.nfe_budget + 200
    again = start(asked)
    again.replay(log, [extension])
    assert again.ask() == ()
    assert (again.result(), again.progress) == (run.result(), run.progress)


@EACH
def test_extending_a_state_changes_nothing_but_what_is_left(name: str) -> None:
    state = states(request(name))[-1]
    more = extend(state, 500)
    assert more.left == state.left + 500 and ALGORITHMS[name].ask(more)


@EACH
def test_a_given_noise_is_the_first_that_is_tried_and_the_budget_holds(name: str) -> None:
    noise = Recipe(seed=99, round=3, index=1, ops=(Neighbor(round=4, index=2, cosine=0.9),) * 2)
    if getattr(ALGORITHMS[name], "plain_start", False):
        with pytest.raises(Unsuitable, match=r"not with one that a search has moved"):
            start(request(name, nfe=600, start_from={"recipe": noise.model_dump(mode="json")}))
        noise = noise.prefix(0)
    given_start = {"recipe": noise.then(Integrate(to=1.0, steps=4)).model_dump(mode="json")}
    run = start(request(name, nfe=600, start_from=given_start))
    first = run.ask()[0].recipe
    assert (first.seed, first.round, first.index, first.noise.ops) == (99, 3, 1, noise.ops)
    assert noise not in {proposal.recipe.noise for proposal in run.ask()[1:]}
    finish(run)
    assert 0 < run.progress.nfe_spent <= 600 and run.result().images[0].finished
