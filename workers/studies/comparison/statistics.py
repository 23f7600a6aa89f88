"""Paired differences and how sure they are, by a bootstrap over conditions; and curves between budgets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

#: Resamples of a bootstrap, its seed, and how much of them an interval holds.
RESAMPLES, SEED, LEVEL = 2000, 0, 0.95

#: Of the searches of a cell, by condition and seed.
Values = Mapping[tuple[str, int], float]
#: Points (x, mean), x rising.
Curve = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Estimate:
    """A mean difference with its interval.

    Attributes:
        mean: over all pairs.
        low, high: bounds of the interval; None where a single condition says nothing of the spread.
        pairs, conditions: how many it is over.
    """

    mean: float
    low: float | None
    high: float | None
    pairs: int
    conditions: int

    @property
    def sign(self) -> str:
        """`+` or `-` where the interval excludes 0, `=` where it does not, `?` without one."""
        if self.low is None or self.high is None:
            return "?"
        return "+" if self.low > 0 else "-" if self.high < 0 else "="


def paired(ours: Values, theirs: Values) -> dict[tuple[str, int], float]:
    """Ours less theirs, of the searches that both made."""
    return {key: value - theirs[key] for key, value in ours.items() if key in theirs}


def mixed(low: Values, high: Values, weight: float) -> dict[tuple[str, int], float]:
    """(1 - `weight`) of `low` and `weight` of `high`, of the searches that both made."""
    return {key: (1 - weight) * value + weight * high[key] for key, value in low.items() if key in high}


def estimate(differences: Values, *, resamples: int = RESAMPLES, seed: int = SEED) -> Estimate | None:
    """The mean of differences with its percentile bootstrap interval; None if there are no differences.

    Searches for one condition are alike, so conditions are what is drawn again, each with all of its seeds (the cluster
    bootstrap: Davison and Hinkley 1997, Bootstrap Methods and their Application, section 3.8).
    """
    if not differences:
        return None
    conditions = sorted({condition for condition, _ in differences})
    place = {condition: index for index, condition in enumerate(conditions)}
    sums, counts = np.zeros(len(conditions)), np.zeros(len(conditions))
    for (condition, _), value in differences.items():
        sums[place[condition]] += value
        counts[place[condition]] += 1
    mean = float(sums.sum() / counts.sum())
    if len(conditions) == 1:
        return Estimate(mean, None, None, len(differences), 1)
    drawn = np.random.default_rng(seed).integers(len(conditions), size=(resamples, len(conditions)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high), len(differences), len(conditions))


def budget_to_reach(curve: Curve, target: float) -> float | None:
    """The least x at which a curve, straight over log x between its points, comes to `target`.

    The first x if it is there from the start, so that less might do; None if it never comes there.
    """
    for index, (x, mean) in enumerate(curve):
        if mean >= target:
            if index == 0:
                return x
            x0, mean0 = curve[index - 1]
            share = (target - mean0) / (mean - mean0)
            return float(np.exp(np.log(x0) + share * (np.log(x) - np.log(x0))))
    return None


def bracket(xs: Sequence[float], x: float) -> tuple[int, int, float] | None:
    """The places in rising `xs` between which `x` lies, and how far along in log x; None if it is outside of them."""
    if not xs or not xs[0] <= x <= xs[-1]:
        return None
    if len(xs) == 1:
        return 0, 0, 0.0
    high = int(np.clip(np.searchsorted(xs, x), 1, len(xs) - 1))
    low = high - 1
    return low, high, float((np.log(x) - np.log(xs[low])) / (np.log(xs[high]) - np.log(xs[low])))
