"""K diverse images of M good ones: by the quality of each, and by the distance between every two ("group inference").

Parmar et al. 2025 (arXiv 2508.15773) choose the group by a quadratic assignment of unary terms for quality and binary
ones for diversity, and prune it while it is sampled; that is left to the search here, and its best are chosen among.
Here, for a set S of K among the M best finished candidates of a search and the request's `diversity` d, it is

    J(S) = (1 - d) / K sum_{i in S} q_i + d / (K (K - 1) / 2) sum_{i < j in S} D_ij

with q the selecting scores, standardised over the M, and D the Euclidean distances between their features, divided by
their mean over all pairs. Both terms are thus without units, and d means the same for every verifier. Distances are not
squared: a sum of squares is largest for two clusters of twins at the opposite ends.

The best candidate is always in S, so that whoever takes one image takes what plain search would give. J is maximised
by greedy choice and swaps, which need not find the maximum (the problem is NP-hard), but begin once from every pair
that the best candidate makes with another. Equal sets, up to rounding: that of the earlier candidates.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence

from sitsearch.workers.jobs.job import Candidate, Choice

#: A gain below this is rounding, which is not to decide between equal sets, nor to lead round in circles.
_ROUNDING = 1e-12


def choose(
    candidates: Sequence[Candidate],
    scores: Sequence[float],
    features: Sequence[Sequence[float]],
    count: int,
    diversity: float,
) -> Choice:
    """The `count` candidates that are good and differ; see the module.

    Args:
        candidates: M > count of them, best first.
        scores: what selects, of each; higher is better.
        features: `[M, D]`; the farther apart, the more two images differ.
        count: K, at least 2.
        diversity: d, in (0, 1].
    """
    distances = relative_distances(features)
    taken = best_set(standardised(scores), distances, count, diversity)
    return Choice(
        ids=tuple(candidates[place].id for place in taken),
        ranks=taken,
        among=len(candidates),
        distance=_mean_distance(distances, taken),
        distance_of_top=_mean_distance(distances, range(count)),
    )


def standardised(scores: Sequence[float]) -> list[float]:
    """Mean 0 and standard deviation 1; all 0 where all are equal."""
    mean, spread = statistics.fmean(scores), statistics.pstdev(scores)
    return [(score - mean) / spread if spread else 0.0 for score in scores]


def relative_distances(features: Sequence[Sequence[float]]) -> list[list[float]]:
    """Euclidean distances `[M, M]` in units of their mean over all pairs; all 0 where all features are equal."""
    size, rows = len(features), [tuple(row) for row in features]
    found = [[math.dist(one, other) for other in rows] for one in rows]
    mean = math.fsum(map(math.fsum, found)) / (size * (size - 1))
    return [[distance / mean for distance in row] for row in found] if mean else found


def best_set(
    quality: Sequence[float], distances: Sequence[Sequence[float]], count: int, diversity: float
) -> tuple[int, ...]:
    """The places, ascending and with place 0, of the set with the largest J that was found; see the module.

    Args:
        quality: q `[M]`.
        distances: D `[M, M]`, symmetric, 0 on the diagonal.
        count: K with 2 <= K <= M.
        diversity: d, in [0, 1].
    """
    alone = [(1 - diversity) / count * value for value in quality]
    scale = diversity / math.comb(count, 2)
    pairs = [[scale * distance for distance in row] for row in distances]
    best: tuple[int, ...] = ()
    highest = -math.inf
    for second in range(1, len(quality)):
        found = _climb(alone, pairs, count, second)
        value = math.fsum(alone[i] for i in found) + math.fsum(pairs[i][j] for i, j in itertools.combinations(found, 2))
        if value > highest + _ROUNDING:
            best, highest = found, value
    return best


def _climb(alone: Sequence[float], pairs: Sequence[Sequence[float]], count: int, second: int) -> tuple[int, ...]:
    """Greedily from 0 and `second`, then by the best swap for as long as there is one that gains."""
    taken, rest = [0, second], [place for place in range(1, len(alone)) if place != second]
    gains = [value + pairs[0][place] + pairs[second][place] for place, value in enumerate(alone)]

    def move(into: int, out: int | None = None) -> None:
        """`gains[i]` is what i adds to the set that is taken, less itself."""
        taken.append(into)
        rest.remove(into)
        for place, distance in enumerate(pairs[into]):
            gains[place] += distance
        if out is not None:
            taken.remove(out)
            rest.append(out)
            for place, distance in enumerate(pairs[out]):
                gains[place] -= distance

    while len(taken) < count:
        move(_first_largest(rest, gains))
    while True:
        most, swap = 0.0, None
        taken.sort()
        rest.sort()
        for out in taken[1:]:
            lost, near = gains[out], pairs[out]
            for into in rest:
                gain = gains[into] - near[into] - lost
                if gain > most + _ROUNDING:
                    most, swap = gain, (into, out)
        if swap is None:
            return tuple(taken)
        move(*swap)


def _first_largest(places: Sequence[int], values: Sequence[float]) -> int:
    """The place with the largest value; of those that are equal up to rounding, the earliest."""
    largest = max(values[place] for place in places)
    return min(place for place in places if values[place] >= largest - _ROUNDING)


def _mean_distance(distances: Sequence[Sequence[float]], places: Sequence[int]) -> float:
    return statistics.fmean(distances[i][j] for i, j in itertools.combinations(places, 2))
