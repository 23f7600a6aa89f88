"""EvoSearch."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Blend, Integrate, Perturb
from sitsearch.workers.search.algorithms.evolutionary import FIRST_CAP, EvoOptions, EvoState, _elites, breeding_steps
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain
from tests.workers.search.algorithms.spending import passes
from tests.workers.search.toy import evaluate, request, rugged, states

SEARCH = ALGORITHMS["evo_search"]
STEPS = 10
PASS = 14 * 10 + 7 * 10 + 7 * 6 + 7 * 4 + 10 * 2


def found(nfe: int = PASS, **options: object) -> list[EvoState]:
    """All states of a search of `STEPS` steps."""
    asked = request("evo_search", nfe=nfe, sampler={"steps": STEPS}, search={"algorithm": "evo_search", **options})
    return [state for state in states(asked) if isinstance(state, EvoState)]


def generations(**options: object) -> list[tuple[Proposal, ...]]:
    """The proposals of a whole pass."""
    return [SEARCH.ask(state) for state in found(**options)[:5]]


def test_a_generation_is_bred_at_every_time_of_the_schedule_and_finished_from_there() -> None:
    bred = generations()
    assert [len(generation) for generation in bred] == [14, 7, 7, 7, 10]
    assert [{p.nfe for p in generation} for generation in bred] == [{10}, {10}, {6}, {4}, {2}]
    assert all(p.recipe.finished for generation in bred for p in generation)


def test_trajectories_halt_where_later_generations_are_bred() -> None:
    for proposal in generations()[0]:
        assert [op.to for op in proposal.recipe.ops if isinstance(op, Integrate)] == pytest.approx([0.4, 0.6, 0.8, 1])


def test_elites_go_on_as_they_are_and_winners_of_tournaments_are_mutated() -> None:
    state = found()[2]
    best = sorted(state.pool, key=lambda member: -member.score)
    proposals = SEARCH.ask(state)
    for proposal, member in zip(proposals[:3], best, strict=False):
        stem = proposal.recipe.prefix(proposal.known)
        assert stem.time == pytest.approx(0.4) and stem == member.recipe.prefix(proposal.known)
        assert isinstance(proposal.recipe.ops[proposal.known], Integrate)
    for proposal in proposals[3:]:
        mutation = proposal.recipe.ops[proposal.known]
        assert isinstance(mutation, Perturb)
        assert mutation.scale == pytest.approx(math.sqrt(2 * 0.6 * 0.1))  # w = 1 - t, one step of ten
        assert proposal.recipe.prefix(proposal.known) in {m.recipe.prefix(proposal.known) for m in best}


def test_start_noises_are_blended_so_that_they_stay_gaussian() -> None:
    for proposal in generations()[1][3:]:
        blend = proposal.recipe.noise.ops[-1]
        assert isinstance(blend, Blend) and blend.strength == 0.2 and proposal.known == 0


def test_a_tournament_of_all_is_won_by_the_best_and_one_of_a_single_member_by_anyone() -> None:
    for share, parents in ((1.0, 1), (0.01, 5)):
        state = found(tournament=share, populations=(14, 12, 7, 7, 10), elites=3, nfe=2 * PASS)[1]
        best = max(state.pool, key=lambda member: member.score).recipe.noise
        noises = {p.recipe.noise.prefix(0) for p in SEARCH.ask(state)[3:]}
        assert (noises == {best}) if parents == 1 else len(noises) >= parents


def test_given_populations_shrink_in_proportion_to_a_small_budget() -> None:
    sizes = [len(SEARCH.ask(state)) for state in found(nfe=PASS // 2, populations=(14, 7, 7, 7, 10))]
    assert sizes == [6, 3, 3, 3, 4, 2, 0]  # the rest buys two plain trajectories


def test_open_populations_follow_the_budget_and_the_first_takes_what_their_proportions_leave() -> None:
    for nfe, expected in ((PASS // 2, [8, 3, 3, 3, 4]), (PASS, [14, 7, 7, 7, 10]), (2 * PASS, [28, 14, 14, 14, 20])):
        assert [len(SEARCH.ask(state)) for state in found(nfe=nfe)] == [*expected, 0]


def test_beyond_the_cap_there_are_equal_passes() -> None:
    full = PASS * FIRST_CAP // 14
    first, second, third = passes("evo_search", 3 * full - 100, steps=STEPS)
    assert abs(first - second) <= 2 * STEPS and abs(second - third) <= 2 * STEPS and first < 1.1 * full


def test_elites_are_three_of_seven() -> None:
    options = EvoOptions()
    assert [_elites(options, size) for size in (2, 3, 7, 10, 14)] == [1, 1, 3, 4, 6]
    assert [_elites(EvoOptions(elites=3), size) for size in (2, 7, 14)] == [1, 3, 3]


def test_the_plan_says_what_the_first_pass_does() -> None:
    for nfe in (PASS // 2, PASS, 10 * PASS):
        first = found(nfe=nfe)[:5]
        chosen = SEARCH.chosen(first[0].allowance, EvoOptions())
        assert chosen["populations"] == tuple(len(SEARCH.ask(state)) for state in first)
        for state, elites in zip(first[2:], chosen["elites"][1:], strict=True):
            stems = [p.recipe.ops[p.known] for p in SEARCH.ask(state)]
            assert sum(not isinstance(op, Perturb) for op in stems) == elites
    assert SEARCH.chosen(found()[0].allowance, EvoOptions(elites=3, populations=(4, 4, 4, 4, 4))) == {}


def test_a_budget_that_no_pass_fits_buys_plain_trajectories_and_the_plan_says_so() -> None:
    state = found(nfe=6 * STEPS)[0]
    assert SEARCH.chosen(state.allowance, EvoOptions()) == {"passes": "none fits: random search"}
    assert len(SEARCH.ask(state)) == 6


def test_mutations_are_as_large_as_a_step_of_the_sampler_that_is_asked_for() -> None:
    sampler = {"steps": STEPS, "diffusion": "increasing-decreasing", "norm": 0.5, "path": "GVP"}
    asked = request("evo_search", nfe=PASS, sampler=sampler)
    ops = [op for state in states(asked)[:3] for p in SEARCH.ask(state) for op in p.recipe.ops]
    scales = [op.scale for op in ops if isinstance(op, Perturb)]
    expected = math.sqrt(2 * 0.5 * math.sin(0.4 * math.pi) ** 2 * 0.1)
    assert scales and scales == pytest.approx([expected] * len(scales))


def test_no_two_integrations_share_their_noises() -> None:
    ops = {op for g in generations() for p in g for op in p.recipe.ops if isinstance(op, Integrate)}
    assert len({(op.round, op.index) for op in ops}) == len(ops)


def test_a_schedule_finer_than_the_steps_loses_times_and_generations() -> None:
    sampling = found()[0].sampling
    assert breeding_steps(EvoOptions(), sampling) == (0, 4, 6, 8)
    options = EvoOptions(schedule=(0.0, 0.01, 0.5, 0.95), populations=(4, 4, 4, 4, 4))
    assert breeding_steps(options, sampling) == (0, 5)


def test_options_that_do_not_agree_are_refused() -> None:
    for wrong in ({"populations": (4, 4)}, {"schedule": (0.5, 0.2, 0.6, 0.8)}, {"populations": (14, 7, 7, 7, 1)}):
        with pytest.raises(ValidationError):
            EvoOptions(**wrong)


def test_a_pass_forgets_the_one_before() -> None:
    state = found(nfe=2 * PASS, populations=(14, 7, 7, 7, 10))[5]
    assert state.pool == () and len(SEARCH.ask(state)) == 14
    again = SEARCH.tell(state, SEARCH.ask(state), evaluate(SEARCH.ask(state), score=rugged))
    assert isinstance(again, EvoState) and len(again.pool) == 14


def test_it_finds_better_than_random_search_where_states_pass_on_their_worth() -> None:
    assert gain("evo_search") > 3
