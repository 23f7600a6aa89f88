"""Estimates and curves against cases worked out by hand."""

from __future__ import annotations

import pytest

from sitsearch.workers.studies.comparison.statistics import bracket, budget_to_reach, estimate, mixed, paired


def test_only_searches_that_both_made_are_paired() -> None:
    ours, theirs = {("a", 0): 3.0, ("a", 1): 4.0}, {("a", 0): 1.0, ("b", 0): 9.0}
    assert paired(ours, theirs) == {("a", 0): 2.0}
    assert mixed({("a", 0): 1.0, ("a", 1): 1.0}, {("a", 0): 5.0}, 0.25) == {("a", 0): 2.0}


def test_the_bootstrap_draws_conditions_with_all_of_their_seeds() -> None:
    # Two conditions drawn twice: "a" alone has the mean 2, both have 3, "b" alone 5, at 1/4, 1/2 and 1/4.
    found = estimate({("a", 0): 1.0, ("a", 1): 3.0, ("b", 0): 5.0})
    assert found is not None
    assert (found.mean, found.low, found.high) == (3.0, 2.0, 5.0)
    assert (found.pairs, found.conditions, found.sign) == (3, 2, "+")


def test_the_sign_is_that_of_an_interval_without_0() -> None:
    below, around = estimate({("a", 0): -1.0, ("b", 0): -2.0}), estimate({("a", 0): -1.0, ("b", 0): 2.0})
    equal = estimate({("a", 0): 0.0, ("b", 0): 0.0})
    assert below and around and equal
    assert (below.sign, around.sign, equal.sign) == ("-", "=", "=")


def test_the_interval_narrows_as_the_normal_one_does() -> None:
    found = estimate({(str(i), 0): float(i % 2) for i in range(400)})  # a mean of 0.5, standard error 0.025
    assert found and found.low and found.high
    assert found.low == pytest.approx(0.5 - 1.96 * 0.025, abs=0.005)
    assert found.high == pytest.approx(0.5 + 1.96 * 0.025, abs=0.005)
    assert found == estimate({(str(i), 0): float(i % 2) for i in range(400)})


def test_one_condition_has_no_interval_and_none_no_estimate() -> None:
    found = estimate({("a", 0): 1.0, ("a", 1): 2.0})
    assert found is not None
    assert (found.mean, found.low, found.high, found.sign) == (1.5, None, None, "?")
    assert estimate({}) is None


def test_a_target_is_reached_straight_over_the_logarithm() -> None:
    curve = [(100, 0.0), (400, 2.0), (800, 1.0), (1600, 3.0)]
    assert budget_to_reach(curve, 1.0) == pytest.approx(200)
    assert budget_to_reach(curve, 2.0) == pytest.approx(400)
    assert budget_to_reach(curve, 2.5) == pytest.approx(800 * 2**0.75)
    assert budget_to_reach(curve, -1.0) == 100
    assert budget_to_reach(curve, 3.5) is None


def test_a_time_lies_between_two_others_or_outside() -> None:
    assert bracket([1.0, 4.0, 16.0], 2.0) == pytest.approx((0, 1, 0.5))
    assert bracket([1.0, 4.0, 16.0], 4.0) == pytest.approx((0, 1, 1.0))
    assert bracket([1.0, 4.0, 16.0], 1.0) == pytest.approx((0, 1, 0.0))
    assert bracket([1.0, 4.0], 4.1) is None
    assert bracket([1.0, 4.0], 0.9) is None
    assert bracket([], 1.0) is None
    assert bracket([2.0], 2.0) == (0, 0, 0.0)
