"""The random decisions of searches."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitsearch.workers.search.draws import choose, softmax, ssp, systematic, tournament, uniform

U = st.floats(0, 1, exclude_max=True)
EACH_SCHEME = pytest.mark.parametrize("scheme", ["systematic", "ssp"])
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


def draw(scheme: str, weights: list[float], seed: int, count: int) -> tuple[int, ...]:
    """`count` indices by a resampling scheme."""
    if scheme == "systematic":
        return systematic(weights, uniform(seed, 0, 0), count)
    return ssp(weights, [uniform(seed, 0, index) for index in range(len(weights) - 1)], count)


@EACH_SCHEME
@given(weights=WEIGHTS, seed=st.integers(0, 2**63), count=st.integers(1, 40))
def test_resampling_keeps_every_count_within_one_of_its_expectation(
    scheme: str, weights: list[float], seed: int, count: int
) -> None:
    chosen = draw(scheme, weights, seed, count)
    assert len(chosen) == count and list(chosen) == sorted(chosen)
    counts = Counter(chosen)
    for index, weight in enumerate(weights):
        assert math.floor(weight * count - 1e-9) <= counts[index] <= math.ceil(weight * count + 1e-9)


@EACH_SCHEME
@pytest.mark.parametrize("count", [2, 4, 9])
def test_resampling_is_unbiased(scheme: str, count: int) -> None:
    weights, draws = [0.05, 0.4, 0.0, 0.25, 0.3], 20_000
    counts = Counter(index for seed in range(draws) for index in draw(scheme, weights, seed, count))
    for index, weight in enumerate(weights):
        assert counts[index] / draws == pytest.approx(count * weight, abs=4 * (0.25 / draws) ** 0.5)
    assert counts[2] == 0


def test_ssp_leaves_no_two_indices_positively_correlated_where_systematic_resampling_does() -> None:
    """Four of eight equal weights: systematic resampling takes every second one, so that all the odd go together."""
    weights, draws = [1 / 8] * 8, 4000
    pairs = {"systematic": 0, "ssp": 0}
    for scheme in pairs:
        pairs[scheme] = sum({0, 2} <= set(draw(scheme, weights, seed, 4)) for seed in range(draws))
    assert pairs["systematic"] / draws == pytest.approx(0.5, abs=0.05)
    assert pairs["ssp"] / draws < 0.25 + 0.03


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
