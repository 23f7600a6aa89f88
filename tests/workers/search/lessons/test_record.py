"""Lessons as sums, and what is read off them."""

from __future__ import annotations

import random
import statistics

import pytest

from sitsearch.workers.search.bests import normal_best
from sitsearch.workers.search.calibration import Mark, Moments
from sitsearch.workers.search.lessons.record import (
    Learnt,
    Lesson,
    Sums,
    band_of,
    fields_of,
    student,
    unexplained,
)
from sitsearch.workers.search.runs.teaching import drawn_of
from tests.workers.search.lessons.many import learnt, learnt_from


def lesson(scores: list[float], algorithm: str = "random", **fields: object) -> Lesson:
    """Of a search with these random candidates."""
    defaults: dict[str, object] = {"gain": None, "own_options": False, "arms": {}, "marks": (), "found": max(scores)}
    names = {"model": "glyphs", "verifier": "toy", "algorithm": algorithm, "trajectories": len(scores)}
    return Lesson(**(defaults | names | {"drawn": drawn_of(scores)} | fields))  # type: ignore[arg-type]


def normal_lessons(jobs: int, count: int, between: float = 2.0, within: float = 1.0, seed: int = 0) -> list[Lesson]:
    """Of random searches whose means are N(5, between^2), and their scores about them N(0, within^2)."""
    source = random.Random(seed)
    means = [source.gauss(5, between) for _ in range(jobs)]
    return [lesson([source.gauss(mean, within) for _ in range(count)]) for mean in means]


def test_spreads_pool_within_searches() -> None:
    found = learnt_from(normal_lessons(200, 16, within=0.5)).spread
    assert found == pytest.approx(0.5, rel=0.05), "the means lie four times as far apart"


def test_moments_of_sums() -> None:
    values = [1.0, 4.0, -2.5, 0.5]
    sums = Sums.of(values)
    assert (sums.mean, sums.variance) == pytest.approx((statistics.fmean(values), statistics.variance(values)))
    assert sums.error == pytest.approx(statistics.stdev(values) / 2)


@pytest.mark.parametrize("n", [1, 8, 24, 64, 200])
def test_the_best_of_random_search_is_foretold(n: int) -> None:
    """Of lessons of 64 candidates: interpolated between powers of two, and carried on to 256."""
    found = learnt_from(normal_lessons(100, 64)).random_best(n)
    assert found is not None and found.jobs == 100
    assert found.score == pytest.approx(5 + normal_best(n), abs=3 * 2 / 10)
    half = (found.high - found.low) / 2
    assert half == pytest.approx(1.98 * (2**2 + _best_variance(n)) ** 0.5, rel=0.2)


def _best_variance(n: int) -> float:
    source = random.Random(9)
    return statistics.variance(max(source.gauss(0, 1) for _ in range(n)) for _ in range(400))


def test_its_interval_holds_the_best_of_a_new_search_as_often_as_it_says() -> None:
    held, trials, source = 0, 300, random.Random(1)
    for trial in range(trials):
        found = learnt_from(normal_lessons(6, 16, seed=100 + trial)).random_best(16)
        assert found is not None
        mean = source.gauss(5, 2)
        held += found.low <= max(source.gauss(mean, 1) for _ in range(16)) <= found.high
    assert held / trials == pytest.approx(0.95, abs=3 * (0.05 * 0.95 / trials) ** 0.5)


def test_nothing_is_foretold_of_what_is_not_known() -> None:
    assert Learnt().random_best(16) is None and Learnt().spread is None and Learnt().unexplained == {}
    assert learnt_from(normal_lessons(4, 64)).random_best(16) is None, "too few searches"
    known = learnt_from(normal_lessons(5, 64))
    assert known.random_best(256) is not None and known.random_best(257) is None, "too far beyond"


def test_scores_that_are_all_the_same_break_nothing() -> None:
    found = learnt_from([lesson([0.25] * 16)] * 8).random_best(40)
    assert found is not None and (found.low, found.score, found.high) == (0.25, 0.25, 0.25)


def test_what_an_algorithm_found_is_kept_by_powers_of_two_of_its_budget() -> None:
    assert [band_of(n) for n in (1, 2, 3, 4, 7, 8)] == [0, 1, 1, 2, 2, 3]
    known = learnt_from([lesson([0.0] * 9, "paths", found=found, gain=0.5) for found in (1.0, 2.0)])
    assert known.found("paths", 15) == Sums.of([1.0, 2.0]) and known.gain("paths", 8).mean == 0.5
    assert known.found("paths", 16).n == known.found("random", 9).n == known.gain("paths", 7).n == 0


def test_fields_that_are_not_understood_are_left_out() -> None:
    known = Learnt({"jobs": 3.0, "arm:rollover:n": 2.0, "arm:rollover:total": 1.0, "arm:rollover:later": 9.0, "x:n": 1})
    assert known.arm("rollover") == Sums(n=2, total=1)
    assert Learnt(fields_of({"arm:region": Sums.of([0.5, 1.0])})).arm("region") == Sums.of([0.5, 1.0])
    assert learnt(arm__region=[0.5]).arm("region") == Sums.of([0.5])


@pytest.mark.parametrize(("freedom", "known"), [(4, 2.7764), (5, 2.5706), (10, 2.2281), (100, 1.9840)])
def test_students_t_is_as_tabulated(freedom: int, known: float) -> None:
    assert student(freedom) == pytest.approx(known, abs=1e-2)


def marks_of(correlation: float, count: int, finished: int, seed: int) -> Mark:
    """A mark at 0.5 at which the best of some trajectories were chosen, whose scores have such a correlation."""
    source = random.Random(seed)
    scale, level = source.uniform(0.1, 10), source.gauss(0, 100)
    pairs = []
    for _ in range(count):
        x = source.gauss(0, 1)
        y = correlation * x + (1 - correlation**2) ** 0.5 * source.gauss(0, 1)
        pairs.append((level + scale * x, 2 * level + scale * y))
    pairs.sort(reverse=True)
    seen = Moments().with_pairs((x, x) for x, _ in pairs)
    return Mark(t=0.5, seen=seen, pairs=Moments().with_pairs(pairs[:finished]))


@pytest.mark.parametrize("correlation", [0.2, 0.6, 0.9])
def test_what_scores_leave_unexplained_pools_over_scales_and_from_survivors_alone(
    correlation: float,
) -> None:
    found = [unexplained([marks_of(correlation, 32, 16, seed)])[0.5] for seed in range(200)]
    residual, variance = sum(one.residual for one in found), sum(one.variance for one in found)
    assert sum(one.n for one in found) == 200 * 14
    assert residual / variance == pytest.approx(1 - correlation**2, abs=0.06)


def test_a_line_that_falls_explains_nothing() -> None:
    (falls,) = unexplained([marks_of(-0.9, 32, 32, 1)]).values()
    assert falls.n == 30 and falls.residual > falls.variance


def test_few_pairs_and_none_tell_nothing() -> None:
    assert unexplained([]) == {} and unexplained([marks_of(0.9, 8, 2, 1)]) == {}
    same = Mark(t=0.5, seen=Moments().with_pairs([(1, 1)] * 5), pairs=Moments().with_pairs([(1, 1)] * 5))
    assert unexplained([same]) == {}


def test_marks_are_told_apart_to_a_64th() -> None:
    marks = (marks_of(0.5, 8, 8, 1), marks_of(0.5, 8, 8, 2).model_copy(update={"t": 0.504}))
    known = learnt_from([lesson([0.0] * 8, marks=marks)])
    assert list(known.unexplained) == [0.5] and known.unexplained[0.5].n == 12
