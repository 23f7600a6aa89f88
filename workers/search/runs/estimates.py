"""What the winner's score is worth: it is the largest of many, and so partly good luck.

How much of it is luck cannot be told from one verifier's say on one pool of images alone. Three things can:

`another_seed`, for one verifier and independent candidates: *what the same search would have found from another seed*.
`left_out`, for an ensemble: *what a member that had no say in it thinks of the others' choice* (cross-validation).
`audited`, for a search that adapts: *what verifiers that neither steered nor selected think of its winner*.

The first says nothing of how good a proxy the verifier is, only how much of its score is owed to the seed: judged by
another seed's winner the largest score is right in the mean, and the interval tells how far it may be off.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Literal

from sitsearch.workers.jobs.job import Estimate
from sitsearch.workers.search.bests import mean_best

#: Scores from which on there is an estimate.
LEAST = {"another_seed": 32, "left_out": 8, "audited": 8}
#: The interval of `another_seed` is read off so many of the largest scores, and the one after them.
_LARGEST = 5
#: q with P(log(G/E) <= q H) = 0.975, for G ~ Gamma(6), E ~ Exp(1), H ~ Gamma(5): see `another_seed`.
_REACH = 1.8651
#: 97.5 % quantile of N(0, 1). Student's is larger by about its part 1 / (degrees of freedom), from 7 of them on.
_NORMAL = 1.96
#: 97.5 % quantiles of Student's t, of 1 to 7 degrees of freedom.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365)


def another_seed(scores: Sequence[float]) -> Estimate | None:
    """What the best of as many other candidates would score; None of fewer than 32.

    The score is the expected best of n. Those of about n/8, n/4 and n/2 are estimated without bias, as averages over
    all subsets of that size; they go on to n as the tail does: for the three types of extremes, which are max-stable,
    the gain of each doubling is the same multiple of the one before (Coles 2001, "An Introduction to Statistical
    Modeling of Extreme Values", chapter 3). It is taken to be at most 1.

    The interval holds the best of another n with probability 0.95. Its lower end is the sixth largest score: the
    other's best lies below it only if the six largest of all 2n are these, with probability below 2^-6, whatever the
    scores' distribution. Its upper end takes the tail above the sixth largest to fall off exponentially: the five
    excesses then sum up to a Gamma(5) variable times its scale, and the other's largest excess is log(Gamma(6)/Exp(1))
    times it. It is too high for scores that have a ceiling, and too low for tails heavier than that.

    Args:
        scores: of independent candidates, in any order.
    """
    if len(scores) < LEAST["another_seed"]:
        return None
    ordered = sorted(scores, reverse=True)
    size = len(ordered) // 8
    eighth, quarter, half = (mean_best(size * times, ordered) for times in (1, 2, 4))
    ratio = min((half - quarter) / (quarter - eighth), 1.0) if quarter > eighth else 0.0
    gain = ratio * (half - quarter)
    beyond = ratio * gain * math.log2(len(ordered) / (8 * size))
    bound = ordered[_LARGEST]
    excess = math.fsum(score - bound for score in ordered[:_LARGEST])
    return _estimate(half + gain + beyond, bound, bound + _REACH * excess, "another_seed")


def left_out(rows: Sequence[Sequence[float]], parts: Sequence[Sequence[float]]) -> Estimate | None:
    """What the members of an ensemble think of winners that they did not choose; None of fewer than 8 candidates.

    For each member the candidate is taken that is best by the others together, and the member's score of it, in
    standard deviations above its mean over the finished candidates. The score is the mean over members; the interval is
    Student's, that takes the members for a sample of the verifiers that there could be, so that two of them tell
    little. Of a search that adapts, every member has steered where it looked: only its say in the choice is left out.

    Args:
        rows: the members' scores of each candidate.
        parts: what each member adds to a candidate's score.
    """
    if len(rows) < LEAST["left_out"]:
        return None
    totals = [math.fsum(row) for row in parts]
    found = []
    for member, column in enumerate(zip(*rows, strict=True)):
        winner = max(range(len(rows)), key=lambda place: totals[place] - parts[place][member])
        spread = statistics.pstdev(column) or 1.0
        found.append((column[winner] - statistics.fmean(column)) / spread)
    mean, error = statistics.fmean(found), statistics.stdev(found) / len(found) ** 0.5
    reach = _STUDENT[len(found) - 2] * error
    return _estimate(mean, mean - reach, mean + reach, "left_out")


def audited(winner: Mapping[str, float], baseline: Sequence[Mapping[str, float]]) -> Estimate | None:
    """What auditors think of the winner; None of a baseline of fewer than 8 candidates.

    The score is the mean over auditors of `standing`, and so is the half-width of the interval: they have looked at the
    same few candidates, so that their errors do not average out.

    Args:
        winner: the auditors' scores of it.
        baseline: those of the candidates with which it is compared.
    """
    found = [standing(winner[name], [row[name] for row in baseline]) for name in winner]
    if not found or any(one is None for one in found):
        return None
    scores, reaches = zip(*(one for one in found if one is not None), strict=True)
    score, reach = statistics.fmean(scores), statistics.fmean(reaches)
    return _estimate(score, score - reach, score + reach, "audited")


def standing(score: float, baseline: Sequence[float]) -> tuple[float, float] | None:
    """A score in standard deviations above the mean of a baseline, and how far that may be off with probability 0.95.

    The error is that of the n scores' mean and standard deviation, 1/n + z^2 / (2 (n - 1)) (Hedges 1981, of a
    standardised difference, for large n), by Student's t. None of fewer than 8 scores; a baseline all of one score
    counts as one of standard deviation 1.
    """
    count = len(baseline)
    if count < LEAST["audited"]:
        return None
    z = (score - statistics.fmean(baseline)) / (statistics.stdev(baseline) or 1.0)
    return z, _NORMAL * (1 + 1 / (count - 1)) * math.sqrt(1 / count + z * z / (2 * (count - 1)))


def _estimate(
    score: float, low: float, high: float, method: Literal["another_seed", "left_out", "audited"]
) -> Estimate:
    return Estimate(score=score, low=low, high=high, method=method)
