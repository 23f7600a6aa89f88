"""The random decisions of searches."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitsearch.workers.search.draws import choose, softmax, systematic, tournament, uniform

U = st.floats(0, 1, exclude_max=True)
WEIGHTS = st.lists(st.floats(0.01, 1), min_size=1, max_size=20).map(lambda xs: [x / math.fsum(xs) for x in xs])


def test_a_draw_is_the_same_for_ever() -> None:
    """Resuming a job on another machine, or another release, must take the same decisions."""
    assert [uniform(7, 0, 0), uniform(7, 0, 1), uniform(7, 1, 0), uniform(2**63 - 1, 5, 9)] == [
        0.7708707196199913,
        0.7416331857071433,
        0.1916105830833411,
        0.7958601279356196,
    ]


def test_draws_fill_the_unit_interval_evenly() -> None:
    draws = [uniform(seed, round, index) for seed in range(10) for round in range(20) for index in range(50)]
    assert len(set(draws)) == len(draws) and min(draws) >= 0 and max(draws) < 1
    counts = Counter(int(draw * 10) for draw in draws)
    assert sum((count - 1000) ** 2 / 1000 for count in counts.values()) < 27.9  # chi-square, 9 degrees, p = 0.001


@given(weights=WEIGHTS, u=U)
def test_systematic_resampling_keeps_every_count_within_one_of_its_expectation(weights: list[float], u: float) -> None:
    chosen = systematic(weights, u)
    assert len(chosen) == len(weights) and list(chosen) == sorted(chosen)
    counts = Counter(chosen)
    for index, weight in enumerate(weights):
        assert abs(counts[index] - weight * len(weights)) < 1 + 1e-9


@given(weights=WEIGHTS, u=U)
def test_what_is_chosen_covers_the_draw(weights: list[float], u: float) -> None:
    index = choose(weights, u)
    assert sum(weights[:index]) <= u + 1e-9 and u <= sum(weights[: index + 1]) + 1e-9


def test_softmax_bears_any_logarithms() -> None:
    assert softmax([1e6, 1e6]) == (0.5, 0.5)
    assert softmax([-1e6, 0.0]) == (0.0, 1.0)
    assert softmax([math.log(1), math.log(3)]) == pytest.approx((0.25, 0.75))


@pytest.mark.parametrize(("population", "size"), [(5, 2), (10, 9), (4, 4), (6, 1)])
def test_a_tournament_is_won_as_often_as_a_draw_without_replacement_says(population: int, size: int) -> None:
    draws = 20_000
    wins = Counter(tournament(population, size, (i + 0.5) / draws) for i in range(draws))
    for rank in range(population):
        expected = math.comb(population - rank - 1, size - 1) / math.comb(population, size)
        assert wins[rank] / draws == pytest.approx(expected, abs=1e-3)
