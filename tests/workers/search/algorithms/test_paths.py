"""Search over paths."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.recipe import Integrate, Recipe, Renoise
from sitsearch.workers.search.algorithms.paths import PathsOptions, PathsState
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gauss
from tests.workers.search.toy import evaluate, first_state, request

SEARCH = ALGORITHMS["paths"]
STEPS = 100


def first(nfe: int = 2000, sampler: dict[str, Any] | None = None, seed: int = 5, **options: object) -> PathsState:
    """The state before the first pass, with Euler steps of 0.01."""
    euler = {"method": "euler", "steps": STEPS} | (sampler or {})
    state = first_state(request("paths", nfe=nfe, seed=seed, search={"algorithm": "paths", **options}, sampler=euler))
    assert isinstance(state, PathsState)
    return state


def rounds(state: PathsState, score: Any = lambda _: 0.0) -> list[tuple[Proposal, ...]]:
    """The rounds of the first pass."""
    found = []
    while not found or state.paths:
        found.append(SEARCH.ask(state))
        told = SEARCH.tell(state, found[-1], evaluate(found[-1], score=score))
        assert isinstance(told, PathsState)
        state = told
    return found


def test_the_papers_values_make_four_rounds_of_which_the_last_is_cut_off_at_the_end() -> None:
    starts, *copies = rounds(first(branches=2))
    assert [p.recipe.ops for p in starts] == [(Integrate(to=0.89, steps=89, index=index),) for index in range(2)]
    ends = [(round_[0].recipe.ops[-2], round_[0].recipe.ops[-1]) for round_ in copies]
    assert [(back.to, on.to) for back, on in ends] == [(0.11, 0.92), (0.14, 0.95), (0.17, 0.98), (0.2, 1.0)]
    assert [on.steps for _, on in ends if isinstance(on, Integrate)] == [81, 81, 81, 80]


@pytest.mark.parametrize(
    ("start", "delta_f", "delta_b", "count"),
    [(0.12, 0.78, 0.81, 4), (0.11, 0.3, 0.9, 1), (0.3, 0.1, 0.2, 3), (0.5, 0.2, 0.21, 50)],
)
def test_it_takes_as_many_rounds_as_the_noise_that_is_left_over_the_gain_of_one(
    start: float, delta_f: float, delta_b: float, count: int
) -> None:
    options = {"start": start, "delta_f": delta_f, "delta_b": delta_b, "paths": 1, "branches": 2}
    assert len(rounds(first(nfe=1_000_000, sampler={"steps": 10}, **options))) == 1 + count


def test_every_path_has_m_copies_and_the_best_n_of_all_go_on() -> None:
    starts, second, third, *_ = rounds(
        first(nfe=3000, branches=3, finish=0), score=lambda recipe: float(_last_index(recipe) in (0, 2))
    )
    assert len(starts) == 2 and len(second) == len(third) == 6
    assert [p.recipe.prefix(1) for p in second] == [starts[i % 2].recipe for i in range(6)]
    assert {p.recipe.prefix(p.known) for p in third} == {second[0].recipe, second[2].recipe}  # both of the first path


def _gauss(recipe: Recipe) -> float:
    """White noise of what led to where a trajectory halted, the more the more rounds it went through."""
    halts = recipe.prefix(len(recipe.ops) - 1) if recipe.finished else recipe
    return gauss(halts.model_dump_json()) + 10 * len(halts.ops)


def _last_index(recipe: Recipe) -> int:
    op = recipe.ops[-1]
    assert isinstance(op, Integrate)
    return op.index


def test_every_copy_has_noise_of_its_own() -> None:
    proposals = [p for round_ in rounds(first(nfe=3000, branches=3)) for p in round_]
    draws = [(op.round, op.index) for p in proposals for op in p.recipe.ops[p.known :] if isinstance(op, Renoise)]
    assert len(draws) == len(set(draws)) == 24


def test_a_pass_costs_its_starts_its_copies_and_their_data_predictions() -> None:
    done = rounds(first(branches=2, finish=0))
    assert [sum(p.nfe for p in round_) for round_ in done] == [2 * 90, 4 * 82, 4 * 82, 4 * 82, 4 * 80]
    assert all(p.recipe.finished for p in done[-1])


def test_copies_are_as_many_as_the_budget_buys_and_what_is_left_over_buys_more_of_the_last() -> None:
    whole_pass = 2 * 90 + 7 * (3 * 82 + 80)
    sizes = [len(round_) for round_ in rounds(first(nfe=whole_pass + 81, paths=2, finish=0))]
    assert sizes == [2, 7, 7, 7, 8]


def test_the_preset_is_the_papers() -> None:
    state = first_state(request("paths", nfe=60_000, search={"algorithm": "paths", "preset": "paper"}))
    assert isinstance(state, PathsState)
    assert [len(round_) for round_ in rounds(state)] == [2, 64, 64, 64, 64]
    assert SEARCH.chosen(state.allowance, state.options) == {}


def test_a_budget_goes_to_equal_passes() -> None:
    """Of at most 64 copies a round, though 1.5 such passes are paid for."""
    state = first(nfe=31_000, finish=0)
    chosen = SEARCH.chosen(state.allowance, state.options)
    sizes = []
    while proposals := SEARCH.ask(state):
        if not state.finished and not state.paths:
            sizes.append([len(proposals)])
        elif state.paths:
            sizes[-1].append(len(proposals))
        else:
            sizes.append([len(proposals)])
        told = SEARCH.tell(state, proposals, evaluate(proposals))
        assert isinstance(told, PathsState)
        state = told
    full = [size for size in sizes if len(size) > 1]
    assert len(full) == 2 and abs(full[0][1] - full[1][1]) <= 1 and full[0][1] < 64
    assert chosen == {"paths": full[0][0], "branches": -(-full[0][1] // full[0][0])}


def ends(round_: tuple[Proposal, ...]) -> list[Recipe]:
    """What a round finishes of trajectories that had halted: their recipes up to there."""
    return [p.recipe.prefix(p.known) for p in round_ if p.evaluated]


def test_the_best_of_all_that_halted_are_finished_with_every_round_and_cost_what_is_left_of_them() -> None:
    done = rounds(first(nfe=3000, branches=3, finish=2), score=_gauss)
    assert [len(ends(round_)) for round_ in done] == [0, 2, 2, 2, 2]
    assert set(ends(done[1])) == {p.recipe for p in done[0]}
    assert {p.nfe for p in done[1] if p.evaluated} == {11 - 1}  # its first evaluation is the data prediction's
    copies = [p.recipe for p in done[1] if not p.evaluated]
    assert set(ends(done[2])) == set(sorted(copies, key=_gauss)[-2:])
    everything = [recipe for round_ in done for recipe in ends(round_)]
    assert len(everything) == len(set(everything))


def test_the_copies_are_what_they_are_without_the_ends() -> None:
    def copies(finish: int) -> list[Recipe]:
        state = first(nfe=6000, branches=4, finish=finish)
        return [p.recipe for round_ in rounds(state, score=_gauss) for p in round_ if not p.evaluated]

    assert copies(0) == copies(3)


def test_it_learns_from_those_that_it_finished_by_the_time_at_which_they_halted() -> None:
    state = first(nfe=4000, branches=4, finish=3)
    while True:
        proposals = SEARCH.ask(state)
        told = SEARCH.tell(state, proposals, evaluate(proposals, score=_gauss))
        assert isinstance(told, PathsState)
        state = told
        if not state.paths:
            break
    fits = {fit.t: fit.n for fit in state.calibration}
    assert list(fits) == [0.89, 0.92, 0.95, 0.98] and fits[0.89] == 2 and sum(fits.values()) == 2 + 3 * 3


def _noise(recipe: Recipe) -> float:
    """Of the last noise that was put in: every copy is a draw of its own, and what becomes of it is seen at once."""
    last = next((op for op in reversed(recipe.ops) if isinstance(op, Renoise)), recipe)
    return gauss("noise", recipe.seed, last.round, last.index)


def test_where_a_data_prediction_is_nearly_the_image_the_best_of_all_rounds_is_found() -> None:
    """Not the best of the last round alone, at the same budget."""

    def bests(finish: int) -> list[float]:
        return [_best(first(nfe=2600, seed=seed, paths=2, finish=finish)) for seed in range(60)]

    ours, papers = bests(4), bests(0)
    gains = [a - b for a, b in zip(ours, papers, strict=True)]
    assert statistics.mean(gains) > 4 * statistics.stdev(gains) / len(gains) ** 0.5


def _best(state: PathsState) -> float:
    best = -math.inf
    while proposals := SEARCH.ask(state):
        candidates = evaluate(proposals, score=_noise)
        best = max([best, *(c.scores["toy"] for c in candidates if c.recipe.finished)])
        told = SEARCH.tell(state, proposals, candidates)
        assert isinstance(told, PathsState)
        state = told
    return best


def test_a_small_budget_has_fewer_paths_and_the_smallest_none() -> None:
    one_path = 90 + 2 * (3 * 82 + 80)
    assert [len(round_) for round_ in rounds(first(nfe=one_path))] == [1, 2, 2, 2, 2]
    (plain,) = rounds(first(nfe=one_path - 1))
    assert [p.recipe.ops for p in plain] == [(Integrate(to=1.0, steps=STEPS, index=i),) for i in range(7)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delta_f": 0.5, "delta_b": 0.5}, "`delta_b` must be above `delta_f`, 0.5"),
        ({"start": 0.3}, "come to less than 1"),
        ({"delta_f": 0.78, "delta_b": 0.7800001}, "at most 1000"),
        ({"paths": 256, "branches": 1024}, "at most 4096"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PathsOptions.model_validate(options)
