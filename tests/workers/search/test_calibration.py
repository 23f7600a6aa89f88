"""Regressions of final scores on those of data predictions."""

from __future__ import annotations

import random
import statistics

import pytest

from sitsearch.workers.search.calibration import Calibration, Fit, Moments, Prior, as_prior, check_ascending, prior_at

SLOPE, INTERCEPT, RESIDUAL = 0.6, 2.0, 0.5


def pairs(count: int, seed: int = 0, *, spread: float = 1.0) -> list[tuple[float, float]]:
    """(score midway, final score) on a line."""
    draw = random.Random(seed)
    scores = [draw.gauss(-1, spread) for _ in range(count)]
    return [(score, INTERCEPT + SLOPE * score + RESIDUAL * draw.gauss(0, 1)) for score in scores]


def fitted(seen: list[tuple[float, float]], finished: list[tuple[float, float]], *priors: Prior) -> Fit:
    """The fit at t = 0.5 of a search that saw some and finished some."""
    calibration = Calibration(prior=priors) if priors else Calibration()
    return calibration.see(0.5, (score for score, _ in seen)).learn(0.5, finished).at(0.5)


def test_a_linear_map_and_its_residual_are_found() -> None:
    every = pairs(3000)
    fit = fitted(every, every)
    assert fit.n == 3000
    assert (fit.slope, fit.intercept, fit.residual) == pytest.approx((SLOPE, INTERCEPT, RESIDUAL), abs=0.03)
    assert fit.correlation == pytest.approx(statistics.correlation(*zip(*every, strict=True)), abs=0.01)


def test_quantiles_hold_so_many_final_scores() -> None:
    fit = fitted(pairs(3000), pairs(3000))
    fresh = pairs(4000, seed=1)
    for q in (0.1, 0.5, 0.8, 0.95):
        below = sum(final < fit.quantile(score, q) for score, final in fresh) / len(fresh)
        assert below == pytest.approx(q, abs=0.03)


def test_survivors_alone_tell_the_same_line_and_the_correlation_among_all() -> None:
    every = sorted(pairs(6000))
    survivors = every[-600:]
    fit = fitted(every, survivors)
    assert (fit.slope, fit.residual) == pytest.approx((SLOPE, RESIDUAL), abs=0.08)
    among_all = statistics.correlation(*zip(*every, strict=True))
    assert statistics.correlation(*zip(*survivors, strict=True)) < among_all - 0.2
    assert fit.correlation == pytest.approx(among_all, abs=0.05)


def test_few_pairs_leave_it_at_the_prior_and_many_do_not() -> None:
    known = Prior(t=0.5, correlation=0.9, slope=2.0, intercept=0.0, residual=0.1, n=20)
    every = pairs(2000)
    slopes = [fitted(every, every[:count], known).slope for count in (0, 2, 20, 200, 2000)]
    assert slopes[0] == pytest.approx(2.0) and slopes[1] > 1.6 and slopes[-1] == pytest.approx(SLOPE, abs=0.05)
    assert slopes == sorted(slopes, reverse=True)


def test_a_prior_of_a_correlation_alone_takes_level_and_scale_from_what_was_seen() -> None:
    scores = [(random.Random(i).gauss(40, 8), 0.0) for i in range(500)]
    fit = fitted(scores, [], Prior(t=0.5, correlation=0.6))
    spread = statistics.pstdev(score for score, _ in scores)
    assert fit.correlation == pytest.approx(0.6) and fit.slope == pytest.approx(0.6)
    assert fit.residual == pytest.approx(0.8 * spread)
    level = statistics.mean(score for score, _ in scores)
    assert fit.mean(level) == pytest.approx(level)
    one = fitted(scores, [(level, 1000.0)], Prior(t=0.5, correlation=0.6))
    assert one.mean(level) == pytest.approx(1000)


def test_scores_that_foretell_nothing_are_found_out_whatever_their_spread() -> None:
    draw = random.Random(3)
    every = [(draw.gauss(0, 10), draw.gauss(0, 1)) for _ in range(300)]
    assert abs(fitted(every, every).correlation) < 0.2


def test_correlations_at_later_times_are_held_against_what_was_seen_before_the_pruning() -> None:
    """Those that are left at the second mark are alike, so that among them even good scores foretell little."""
    draw = random.Random(4)
    finals = [draw.gauss(0, 1) for _ in range(4000)]
    early = [(final + draw.gauss(0, 1), final) for final in finals]
    left = [final for _, final in sorted(early)[-800:]]
    late = [(final + draw.gauss(0, 0.5), final) for final in left]
    calibration = Calibration().see(0.1, (score for score, _ in early)).see(0.5, (score for score, _ in late))
    calibration = calibration.learn(0.1, sorted(early)[-800:]).learn(0.5, late)
    first, second = calibration.fits
    assert first.correlation == pytest.approx(0.5**0.5, abs=0.06)
    assert second.correlation > statistics.correlation(*zip(*late, strict=True)) + 0.02
    assert second.correlation > first.correlation


def test_moments_are_those_of_all_pairs_in_whatever_parts_they_come() -> None:
    every = pairs(50)
    whole = Moments().with_pairs(every)
    parts = Moments().with_pairs(every[:13]).merged(Moments().with_pairs(every[13:]))
    assert list(parts.model_dump().values()) == pytest.approx(list(whole.model_dump().values()))
    scores, finals = zip(*every, strict=True)
    assert whole.xx / 49 == pytest.approx(statistics.variance(scores))
    assert whole.xy / 49 == pytest.approx(statistics.covariance(scores, finals))
    assert Moments().merged(Moments()) == Moments()


def test_priors_are_interpolated_and_lead_to_a_perfect_prediction_at_the_end() -> None:
    priors = (Prior(t=0.2, correlation=0.4), Prior(t=0.6, correlation=0.8))
    found = [prior_at(priors, t).correlation for t in (0.0, 0.2, 0.3, 0.6, 0.8, 1.0)]
    assert found == pytest.approx([0.4, 0.4, 0.5, 0.8, 0.9, 1.0])
    exact = Prior(t=0.5, correlation=0.5, slope=0.5, intercept=1.0, residual=2.0)
    between = prior_at((exact,), 0.75)
    assert (between.slope, between.intercept, between.residual) == pytest.approx((0.75, 0.5, 1.0))
    assert prior_at((priors[0], exact), 0.3).slope is None


def test_what_one_search_learned_is_anothers_prior() -> None:
    every = pairs(100)
    fit = fitted(every, every)
    untold = fit.model_copy(update={"t": 0.7, "n": 0})
    (prior,) = as_prior([fit, untold], most=32)
    assert prior.n == 32 and prior.slope == fit.slope
    again = fitted(every, [], prior)
    assert (again.slope, again.intercept, again.residual) == pytest.approx((fit.slope, fit.intercept, fit.residual))


def test_scores_that_are_all_the_same_break_nothing() -> None:
    fit = fitted([(0.0, 0.0)] * 9, [(0.0, 0.0)] * 9)
    assert (fit.correlation, fit.mean(0.0), fit.residual) == (0.9, 0.0, 0.0)


def test_it_goes_through_json() -> None:
    calibration = Calibration().see(0.5, [1.0, 2.0]).learn(0.5, pairs(3))
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration


def test_times_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(ValueError, match="the times t of `prior` must ascend"):
        check_ascending([Prior(t=0.5, correlation=0.1), Prior(t=0.5, correlation=0.2)])
