"""Which of many conditions the next candidates go to: where another draw is expected to gain most for its NFE.

The expected best of n draws is concave in n, so that greed by the marginal gain is the best way to share a budget out
where the distributions are known. Here they are learnt on the way, a normal from each condition's own scores. (For
prompts of language models compare arXiv 2506.12721, which learns how hard each is while it samples.)

A draw s of N(mean, sd^2) is expected to raise a best score by (expected improvement, Jones et al. 1998, eq. 15)

    E[(s - best)+] = sd (phi(z) - z (1 - Phi(z))),  z = (best - mean) / sd

Two things keep this honest where there are few scores, or where they are not normal:

- the spread is shrunk to that of all conditions: their pooled variance counts as `PRIOR` degrees of freedom more
  (empirical Bayes). A few more of them would give a condition of small spread a share that it has no use for;
- whatever the distribution, n + 1 draws are equally likely to be the largest, so that the next one is among the k best
  with probability k / (n + 1), and z is taken to be at least the normal's quantile of that. A condition at the bound
  of its verifier, whose scores are spread downwards only, would be thought promising for ever without.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from statistics import NormalDist

from sitsearch.workers.jobs.base import Schema

#: Degrees of freedom that the pooled variance counts as.
PRIOR = 1
#: The part of an even share that every condition gets, and the candidates that it gets at the least, if they fit.
FLOOR, FLOOR_COUNT = 0.25, 2
#: Rounds that what is above the floor is shared out in, at the least, and bounds to the candidates of one.
ROUNDS, SMALLEST, LARGEST = 24, 8, 128

_NORMAL = NormalDist()


class Seen(Schema):
    """The scores of one condition so far.

    Attributes:
        count, mean, squares: how many, their mean, and the sum of their squared distances from it.
        best: the highest of them, best first, at most as many as images are wanted of the condition.
        nfe: what they took.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    best: tuple[float, ...] = ()
    nfe: int = 0

    def told(self, score: float, nfe: int, keep: int) -> Seen:
        """With one more (Welford's update), of which `keep` are wanted."""
        count, off = self.count + 1, score - self.mean
        mean = self.mean + off / count
        best = tuple(sorted((*self.best, score), reverse=True)[:keep])
        squares = self.squares + off * (score - mean)
        return Seen(count=count, mean=mean, squares=squares, best=best, nfe=self.nfe + nfe)


def floor_of(candidates: int, conditions: int, keep: int) -> int:
    """The candidates that every condition gets: a part of its even share, and no fewer than its `keep` images.

    Args:
        candidates: that the budget buys in all, at least `keep` for each of the `conditions`.
    """
    share = candidates // conditions
    return max(keep, min(FLOOR_COUNT, share), math.ceil(FLOOR * share))


def round_size(extra: int) -> int:
    """Candidates of a round, when there are `extra` above the floor: small enough to learn, large enough for pools."""
    return max(SMALLEST, min(LARGEST, extra // ROUNDS))


def expected_gain(z: float, sd: float) -> float:
    """`E[(s - best)+]` of a normal draw s; see the module. `z` says how many `sd` the best lies above the mean."""
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    return max(0.0, sd * (density - z * math.erfc(z / math.sqrt(2)) / 2))


def spreads(seen: Sequence[Seen]) -> list[float]:
    """Each condition's standard deviation, shrunk to the pooled one; 1 for all where no condition has two scores."""
    known = sum(one.count - 1 for one in seen)
    pooled = sum(one.squares for one in seen) / known if known else 1.0
    return [math.sqrt((one.squares + PRIOR * pooled) / (one.count - 1 + PRIOR)) for one in seen]


def allotted(seen: Sequence[Seen], count: int, open_: Sequence[bool]) -> tuple[int, ...]:
    """The conditions that the next `count` candidates go to, one by one, as places among `seen`.

    The candidates of a round are drawn before any is scored: each goes to the largest gain per NFE, after which its
    condition's worst kept score counts as raised by what it was expected to gain, so that the sum is right in
    expectation. Ties go to the condition with fewer candidates, then to the earlier one.

    Args:
        seen: of every condition, at least one score in each.
        count: candidates to share out.
        open_: whether a condition may get any; none come back where none may.
    """
    sds = spreads(seen)
    best = [one.best for one in seen]
    counts = [one.count for one in seen]

    def entry(place: int) -> tuple[float, int, int, float]:
        one, sd = seen[place], sds[place]
        gain = 0.0
        if sd > 0:
            chance = len(one.best) / (counts[place] + 1)
            z = max((best[place][-1] - one.mean) / sd, _NORMAL.inv_cdf(1 - chance))
            gain = expected_gain(z, sd)
        return -gain * one.count / one.nfe, counts[place], place, gain

    heap = [entry(place) for place in range(len(seen)) if open_[place]]
    heapq.heapify(heap)
    chosen: list[int] = []
    while heap and len(chosen) < count:
        _, _, place, gain = heap[0]
        chosen.append(place)
        counts[place] += 1
        raised = best[place][-1] + gain
        best[place] = tuple(sorted((*best[place][:-1], raised), reverse=True))
        heapq.heapreplace(heap, entry(place))
    return tuple(chosen)
