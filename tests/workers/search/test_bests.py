"""The expected best of n."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from itertools import combinations

import pytest

from sitsearch.workers.search.bests import carried_on, expected_best, mean_best, normal_best


@pytest.mark.parametrize(
    ("n", "known"),  # Harter 1961, "Expected values of normal order statistics"
    [(1, 0.0), (2, 0.56419), (3, 0.84628), (10, 1.53875), (100, 2.50759), (400, 2.96818)],
)
def test_the_best_of_normal_draws_is_as_tabulated(n: int, known: float) -> None:
    assert normal_best(n) == pytest.approx(known, abs=1e-5)


@pytest.mark.parametrize("n", [2, 10, 1000, 10**6])
def test_it_is_near_bloms_approximation(n: int) -> None:
    assert normal_best(n) == pytest.approx(statistics.NormalDist().inv_cdf((n - 0.375) / (n + 0.25)), abs=0.03)


def test_there_is_no_best_of_less_than_one() -> None:
    with pytest.raises(ValueError, match=r"the best of 0\.5"):
        normal_best(0.5)


def test_the_mean_best_is_that_of_all_subsets() -> None:
    scores = [5.0, 3.0, 2.5, 1.0, -4.0]
    for size in range(1, 6):
        best = [max(subset) for subset in combinations(scores, size)]
        assert mean_best(size, scores) == pytest.approx(statistics.fmean(best))
        squares = [score**2 for score in scores]
        assert mean_best(size, squares) == pytest.approx(statistics.fmean(score**2 for score in best))


DRAWS: dict[str, Callable[[random.Random], float]] = {
    "normal": lambda source: source.gauss(0, 1),
    "uniform": lambda source: source.random(),
    "log-probability": lambda source: -math.exp(source.gauss(0, 1.5)),
}


@pytest.mark.parametrize("name", DRAWS)
def test_the_best_of_more_draws_than_there_are_is_met_whatever_their_distribution(name: str) -> None:
    source, count, n = random.Random(3), 16, 64
    best = statistics.fmean(max(DRAWS[name](source) for _ in range(n)) for _ in range(2000))
    drawn = [[DRAWS[name](source) for _ in range(count)] for _ in range(1000)]
    spread = math.sqrt(statistics.fmean(statistics.variance(scores) for scores in drawn))
    found = statistics.fmean(expected_best(scores, n) for scores in drawn)
    assert abs(found - best) < 0.2 * spread
    if name != "normal":
        assert statistics.fmean(map(statistics.fmean, drawn)) + normal_best(n) * spread > best + 0.5 * spread


def test_the_best_of_fewer_draws_is_without_bias() -> None:
    source = random.Random(4)
    found = [expected_best([source.gauss(0, 1) for _ in range(32)], 8) for _ in range(1000)]
    assert statistics.fmean(found) == pytest.approx(normal_best(8), abs=0.03)


def test_the_growth_of_a_normal_distribution_is_carried_on_exactly() -> None:
    assert carried_on(*(normal_best(n) for n in (4, 8, 16)), size=16, n=50) == pytest.approx(normal_best(50))
