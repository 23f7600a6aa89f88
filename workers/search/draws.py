"""The random decisions that a search itself takes (whom to resample, whom to mate), as pure functions of integers.

Latents' noise is drawn elsewhere, from recipes (models/noise.py); nothing here touches a tensor or a live generator.
"""

from __future__ import annotations

import hashlib
import math
import struct
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate


def uniform(seed: int, round: int, index: int) -> float:
    """A number in [0, 1), the same on every machine for the same three integers in [0, 2^64); 53 random bits.

    Raises:
        struct.error: an integer is out of range.
    """
    digest = hashlib.blake2b(struct.pack("<3Q", seed, round, index), digest_size=8, person=b"search-draw").digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def softmax(logs: Sequence[float]) -> tuple[float, ...]:
    """`exp(logs)` divided by its sum, in log space: no overflow, whatever the logs are."""
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    total = math.fsum(weights)
    return tuple(weight / total for weight in weights)


def choose(weights: Sequence[float], u: float) -> int:
    """The index that `u` in [0, 1) falls on when `weights` (which sum to 1) lie end to end."""
    passed = 0.0
    for index, weight in enumerate(weights):
        passed += weight
        if u < passed:
            return index
    return max(index for index, weight in enumerate(weights) if weight)  # rounding left the sum just below 1


def systematic(weights: Sequence[float], u: float, count: int | None = None) -> tuple[int, ...]:
    """Systematic resampling: `count` indices (as many as weights, if left out), in order; index i is chosen
    floor(count w_i) or ceil(count w_i) times.

    Kitagawa 1996, "Monte Carlo filter and smoother": one uniform number `u` in [0, 1) serves all positions
    (u + j) / count. Its variance is below that of independent choices (Douc et al. 2005).
    """
    count = len(weights) if count is None else count
    ends = list(accumulate(weights))
    last = max(index for index, weight in enumerate(weights) if weight)  # rounding may leave the sum just below 1
    return tuple(min(last, bisect_right(ends, (u + position) / count)) for position in range(count))


def ssp(weights: Sequence[float], uniforms: Sequence[float], count: int | None = None) -> tuple[int, ...]:
    """Resampling by Srinivasan's sampling process: as `systematic`, but consistent whatever the weights' order is.

    Gerber, Chopin and Whiteley 2019, arXiv 1708.06733: every index is certain of floor(count w_i); the
    fractions left over meet two at a time, and one of the two is settled at 0 or 1 without changing either's
    expectation. The numbers of times that indices are chosen are negatively associated.

    Args:
        weights: sum to 1.
        uniforms: one number in [0, 1) for every weight but the first.
        count: how many indices; as many as weights, if left out.
    """
    count = len(weights) if count is None else count
    chosen = [math.floor(count * weight) for weight in weights]
    open_, fraction = 0, count * weights[0] - chosen[0]
    for index, u in zip(range(1, len(weights)), uniforms, strict=True):
        other = count * weights[index] - chosen[index]
        total = fraction + other
        if total < 1:  # one of them is settled at 0, the other takes both fractions
            open_ = open_ if u * total < fraction else index
        else:  # one of them is settled at 1
            winner, open_ = (open_, index) if u * (2 - total) < 1 - other else (index, open_)
            chosen[winner] += 1
            total -= 1
        fraction = total
    if sum(chosen) < count:  # the last fraction is 1, but for rounding
        chosen[open_] += 1
    return tuple(index for index, times in enumerate(chosen) for _ in range(times))


def tournament(population: int, size: int, u: float) -> int:
    """The rank (0 is best) of the best of `size` members drawn without replacement from `population`, from one `u`.

    Rank r wins with probability C(population - r - 1, size - 1) / C(population, size).
    """
    for rank in range(population - size):
        share = size / (population - rank)
        if u < share:
            return rank
        u = (u - share) / (1 - share)
    return population - size
