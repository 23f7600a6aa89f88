"""What the best of n independent scores is expected to be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

#: Integrals are taken between -REACH and REACH, by the trapezoidal rule with so many points a unit.
REACH, POINTS = 9, 32


@lru_cache(maxsize=4096)
def normal_best(n: float) -> float:
    """The expected largest of `n` independent standard normal draws, E max = integral of x d(Phi(x)^n).

    Real n >= 1 count as the distribution Phi^n. The integrand is smooth and vanishes at both ends, so that the
    trapezoidal rule converges geometrically; Blom's approximation (1958), Phi^-1((n - 3/8) / (n + 1/4)), is good to two
    digits.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"the best of {n} draws is not defined")
    total = 0.0
    for place in range(-REACH * POINTS, REACH * POINTS + 1):
        x = place / POINTS
        tail = 0.5 * math.erfc(abs(x) / math.sqrt(2))
        total += x * math.exp(-x * x / 2 + (n - 1) * (math.log1p(-tail) if x > 0 else math.log(tail)))
    return n * total / (POINTS * math.sqrt(2 * math.pi))


def mean_best(size: int, ordered: Sequence[float]) -> float:
    """The mean of the largest of `size` of the scores, over all subsets of that size; without bias for the best of
    `size` draws.

    Args:
        size: from 1 to the number of scores.
        ordered: the scores, largest first; or a function of each of them, whose mean at the largest is wanted.
    """
    count, total, weight = len(ordered), 0.0, size / len(ordered)
    for place, score in enumerate(ordered[: count - size + 1]):
        total += weight * score  # the weight is the share of the subsets in which this one is the largest
        weight *= (count - place - size) / max(count - place - 1, 1)
    return total


def carried_on(quarter: float, half: float, full: float, size: float, n: float) -> float:
    """The expected best of `n` draws, from those of `size` / 4, `size` / 2 and `size`.

    Each doubling is held against what it gains a normal distribution. In that measure the next one gains as much less
    than the last as the last gained less than the one before it, and never more. So a normal's own growth goes on, and
    scores that have a ceiling, as those of a classifier do, are carried up to it rather than beyond; by a normal with
    their spread, they would be.

    Args:
        quarter, half, full: the expected best of `size` / 4, of `size` / 2 and of `size`.
        size: at least 4.
        n: at least `size`.
    """
    before = max(0.0, half - quarter) / (normal_best(size / 2) - normal_best(size / 4))
    rate = max(0.0, full - half) / (normal_best(size) - normal_best(size / 2))
    ratio = min(1.0, rate / before) if before > 0 else 0.0
    best, doubling = full, 1
    while size < n:
        following = min(2 * size, n)
        best += rate * ratio**doubling * (normal_best(following) - normal_best(size))
        size, doubling = following, doubling + 1
    return best


def expected_best(scores: Sequence[float], n: int) -> float:
    """The expected best of `n` more draws of what these scores were drawn from.

    As many as there are, or fewer: the mean over subsets. More: carried on from an eighth, a quarter and half of them,
    as the best of all is a single draw.

    Args:
        scores: at least eight, in any order.
        n: at least 1; how much more than there are scores can be trusted is the caller's to say.
    """
    ordered = sorted(scores, reverse=True)
    if n <= len(ordered):
        return mean_best(n, ordered)
    eighth = len(ordered) // 8
    first, second, third = (mean_best(eighth * times, ordered) for times in (1, 2, 4))
    return carried_on(first, second, third, size=4 * eighth, n=n)
