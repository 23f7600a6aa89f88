"""The random decisions that a search itself takes (whom to resample, whom to mate), as pure functions of integers.

Latents' noise is drawn elsewhere, from recipes (models/noise.py); nothing here touches a tensor or a live generator.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence


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


def systematic(weights: Sequence[float], u: float) -> tuple[int, ...]:
    """Systematic resampling: as many indices as weights, index i chosen floor or ceil(k w_i) times, in order.

    Kitagawa 1996, "Monte Carlo filter and smoother": one uniform number `u` in [0, 1) serves all k positions
    (u + j) / k. Its variance is below that of k independent choices (Douc et al. 2005).
    """
    count = len(weights)
    return tuple(choose(weights, (u + position) / count) for position in range(count))


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
