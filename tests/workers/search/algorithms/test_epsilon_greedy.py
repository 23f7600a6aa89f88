"""Epsilon-greedy noise trajectory search."""

from __future__ import annotations

import pytest

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.algorithms.epsilon_greedy import ROUNDS_CAP, EpsilonGreedyOptions, EpsilonGreedyState
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain, mean_best
from tests.workers.search.algorithms.spending import spending
from tests.workers.search.toy import evaluate, first_state, request, rugged, states

SEARCH = ALGORITHMS["epsilon_greedy"]
STEPS = 5


def asked(nfe: int, **options: object) -> list[EpsilonGreedyState]:
    """All states of a search of `STEPS` steps."""
    found = states(request("epsilon_greedy", nfe=nfe, search={"algorithm": "epsilon_greedy", **options}))
    return [state for state in found if isinstance(state, EpsilonGreedyState)]


def by_step(found: list[EpsilonGreedyState]) -> dict[int, list[Recipe]]:
    """The recipes proposed for every step of the first pass."""
    steps: dict[int, list[Recipe]] = {}
    for state in found:
        for proposal in SEARCH.ask(state):
            if state.finished == 0:
                steps.setdefault(len(proposal.recipe.ops), []).append(proposal.recipe)
    return steps


def test_the_budget_goes_to_one_trajectory_with_as_many_rounds_a_step_as_it_buys() -> None:
    steps = by_step(asked(1 + 4 * 4 * 7))
    assert [len(steps[i]) for i in range(STEPS + 1)] == [1, 28, 28, 28, 28, 1]


def test_what_is_beyond_the_full_rounds_goes_to_another_pass() -> None:
    found = asked(2 * (1 + 4 * 80), rounds=20)
    assert [len(group) for group in by_step(found).values()] == [1, 80, 80, 80, 80, 1]
    assert found[-1].finished == 2 and found[-1].left == 0


def test_beyond_the_cap_there_are_equal_passes() -> None:
    full = 1 + 19 * 4 * ROUNDS_CAP
    for nfe in (full // 3, 2 * full, 5 * full - 30):
        spent, plain = spending("epsilon_greedy", nfe)
        assert max(spent) - min(spent) <= 8 and max(spent) <= 1.1 * full
        assert len(spent) == max(1, round(nfe / full)) and sum(spent) + plain > nfe - 20


def test_the_plan_says_what_the_first_pass_does() -> None:
    for nfe in (100, 1000, 7680):
        state = first_state(request("epsilon_greedy", nfe=nfe, sampler={"steps": 20}))
        proposals = SEARCH.ask(state)
        after = SEARCH.tell(state, proposals, evaluate(proposals))
        assert isinstance(after, EpsilonGreedyState)
        assert SEARCH.chosen(state.allowance, EpsilonGreedyOptions()) == {"rounds": after.rounds}
    assert SEARCH.chosen(state.allowance, EpsilonGreedyOptions(rounds=3)) == {}
    small = first_state(request("epsilon_greedy", nfe=38, sampler={"steps": 20}))
    assert SEARCH.chosen(small.allowance, EpsilonGreedyOptions()) == {"passes": "none fits: random search"}
    assert SEARCH.ask(small)[0].recipe.finished


def test_a_proposal_costs_one_evaluation_and_the_last_step_none() -> None:
    for state in asked(1 + 4 * 4 * 7):
        for proposal in SEARCH.ask(state):
            assert proposal.nfe == (not proposal.recipe.finished)


def test_steps_outside_the_band_get_one_round() -> None:
    steps = by_step(asked(1 + 2 * 4 + 2 * 40, band_from=0.2, band_to=0.4))
    assert [len(steps[i]) for i in range(1, STEPS)] == [4, 40, 40, 4]


def test_a_small_budget_shrinks_the_rounds_noises() -> None:
    steps = by_step(asked(1 + 4 * 3))
    assert [len(steps[i]) for i in range(1, STEPS)] == [3, 3, 3, 3]
    assert SEARCH.ask(asked(8)[0])[0].recipe.finished  # not two noises a step: a plain trajectory


def test_every_step_is_taken_with_the_best_of_all_its_rounds() -> None:
    steps = by_step(asked(1 + 4 * 4 * 7))
    for step in range(1, STEPS):
        assert {recipe.prefix(step) for recipe in steps[step + 1]} == {max(steps[step], key=rugged)}


def nudged(state: EpsilonGreedyState) -> list[bool]:
    """Which proposals of a round are near the pivot: one nudge more than it has."""
    near = []
    for proposal in SEARCH.ask(state):
        op = proposal.recipe.ops[-1]
        assert isinstance(op, Integrate) and op.steps == 1
        near.append(bool(op.nudges))
        if op.nudges:
            pivot = op.model_copy(update={"nudges": op.nudges[:-1]})
            assert state.pivot is not None and pivot == state.pivot.recipe.ops[-1]
            assert op.nudges[-1].radius == state.options.lam
    return near


@pytest.mark.parametrize("eps", [0.0, 0.4, 1.0])
def test_a_noise_is_fresh_with_probability_eps_after_the_first_round(eps: float) -> None:
    later, first = [], []
    for state in asked(20 * (1 + 4 * 80), eps=eps):
        if state.size and state.parent and len(state.parent.ops) < STEPS - 1:
            (later if state.pivot else first).extend(nudged(state))
    assert not any(first)
    assert 1 - sum(later) / len(later) == pytest.approx(eps, abs=4 * (eps * (1 - eps) / len(later)) ** 0.5)


def test_a_pivot_stays_until_it_is_beaten() -> None:
    def worse_every_round(candidates: list[Candidate], round: int) -> list[Candidate]:
        return [c.model_copy(update={"scores": {"toy": -float(round)}}) for c in candidates]

    state = asked(200)[0]
    for _ in range(4):
        state = SEARCH.tell(state, SEARCH.ask(state), worse_every_round(evaluate(SEARCH.ask(state)), state.round))
    assert state.pivot is not None and state.pivot.score == -1.0 and state.done == 3


def test_it_finds_better_than_random_search_where_previews_tell() -> None:
    assert gain("epsilon_greedy") > 10


def test_it_finds_in_a_quarter_of_the_nfe_what_random_search_finds() -> None:
    assert mean_best("epsilon_greedy", 160)[0] > mean_best("random", 640)[0]
