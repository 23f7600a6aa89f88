"""How the scores of one or several verifiers become the one score that selects.

`rank`: the average of a candidate's ranks under the members, ties sharing theirs (Ma et al. 2025, section 4: "Ensemble
is the unweighted average of ranks"), over its peers seen so far, as a fraction: 1 is best by every member.
`zscore`: the weighted mean of the members' standardised scores, over its peers seen so far.
`gate`: at least `least` on every member but the last, then the best on the last; of those that fail, the one that
comes nearest.

The peers of a finished image are the finished images, those of a data prediction the ones of its time t: what is half
made is no measure of images. Under `rank` and `zscore` a candidate's score changes when others are seen: scores that a
search remembers are brought up to date before it is told new ones.
"""

from __future__ import annotations

import math
import statistics
from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping, Sequence

from sitsearch.workers.jobs.job import Candidate, Estimate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import VerifierChoice
from sitsearch.workers.search.runs.estimates import another_seed, left_out
from sitsearch.workers.search.sampling import PLACES


class Selection:
    """The scores of all candidates that were seen, and what they come to.

    Args:
        choice: the request's verifier.
    """

    def __init__(self, choice: VerifierChoice) -> None:
        self.choice = choice
        self._seen: dict[Recipe, tuple[float, ...]] = {}
        self._peers: dict[float, tuple[list[float], ...]] = {}  # by time: the members' scores, ascending

    @property
    def settled(self) -> bool:
        """A candidate's score never changes."""
        return self.choice.members is None or self.choice.rule == "gate"

    def add(self, candidates: Sequence[Candidate]) -> None:
        """See candidates, with the scores of every member.

        Raises:
            KeyError: a member's score is missing.
        """
        for candidate in candidates:
            scores = tuple(candidate.scores[name] for name in self.choice.names)
            if candidate.recipe in self._seen:
                continue
            self._seen[candidate.recipe] = scores
            if not self.settled:
                peers = self._peers.setdefault(_time(candidate.recipe), tuple([] for _ in scores))
                for ordered, score in zip(peers, scores, strict=True):
                    insort(ordered, score)

    def scores(self, recipes: Sequence[Recipe]) -> dict[Recipe, float]:
        """What each of these, which were seen, selects by now; higher is better."""
        if self.choice.members is None:
            return {recipe: self._seen[recipe][0] for recipe in recipes}
        if self.choice.rule == "gate":
            return {recipe: self._gated(self._seen[recipe]) for recipe in recipes}
        whole = math.fsum(self.choice.weights or (1.0,) * len(self.choice.names))
        return {recipe: math.fsum(parts) / whole for recipe, parts in self._parts(recipes).items()}

    def finished(self, besides: Collection[Recipe] = ()) -> list[Recipe]:
        """The finished images that were seen, without those of the final generation, `besides`."""
        return [recipe for recipe in self._seen if recipe.finished and recipe not in besides]

    def estimate(self, *, independent: bool, besides: Collection[Recipe] = ()) -> Estimate | None:
        """What the best score among the finished images is worth (see `estimates`); None where it cannot be told.

        Args:
            independent: the search draws its candidates independently, and ends whatever they score.
            besides: images that are left out of account, those of the final generation.
        """
        pool = self.finished(besides)
        if self.settled:
            return another_seed([*self.scores(pool).values()]) if independent else None
        parts = self._parts(pool)
        return left_out([self._seen[recipe] for recipe in pool], [parts[recipe] for recipe in pool])

    def _parts(self, recipes: Sequence[Recipe]) -> dict[Recipe, list[float]]:
        """What each member adds to the scores of these, under a rule that compares them with their peers."""
        if self.choice.rule == "rank":
            return {recipe: _ranks_among(self._seen[recipe], self._peers[_time(recipe)]) for recipe in recipes}
        weights = self.choice.weights or (1.0,) * len(self.choice.names)
        times = {_time(recipe) for recipe in recipes}
        moments = {time: [_moments(ordered) for ordered in self._peers[time]] for time in times}
        return {
            recipe: [
                weight * (score - mean) / spread
                for weight, score, (mean, spread) in zip(
                    weights, self._seen[recipe], moments[_time(recipe)], strict=True
                )
            ]
            for recipe in recipes
        }

    def _gated(self, scores: tuple[float, ...]) -> float:
        """The last member's score, squeezed into (0, 1) where the gates are passed; else in (-1, 0) by what lacks."""
        least = self.choice.least or ()
        lacking = math.fsum(max(0.0, bound - score) for bound, score in zip(least, scores, strict=False))
        if lacking > 0:
            return -lacking / (1 + lacking)
        return 0.5 + math.atan(scores[-1]) / math.pi


def _time(recipe: Recipe) -> float:
    """The time at which a recipe ends, the same for all that end at one step."""
    return round(recipe.time, PLACES)


def _ranks_among(scores: tuple[float, ...], peers: Sequence[Sequence[float]]) -> list[float]:
    return [
        (bisect_left(ordered, score) + bisect_right(ordered, score) + 1) / (2 * len(ordered))
        for ordered, score in zip(peers, scores, strict=True)
    ]


def _moments(ordered: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation; the latter 1 where all are equal."""
    return statistics.fmean(ordered), statistics.pstdev(ordered) or 1.0


def hacking(points: Sequence[Mapping[str, float]], auditors: Sequence[str]) -> tuple[str, ...]:
    """The auditors that fell while the selecting score rose: the sign of verifier hacking.

    Args:
        points: what the auditors say of the best candidate so far, once for each time that there was a better one.
        auditors: their names.

    Returns:
        Those whose score has a rank correlation (Spearman) of `CORRELATION` or less with the order of the winners and
        is lower for the last winner than for the first; none before there were `WINNERS` winners.
    """
    if len(points) < WINNERS:
        return ()
    falling = []
    for name in auditors:
        scores = [point[name] for point in points]
        correlation = rank_correlation(range(len(scores)), scores)
        if scores[-1] < scores[0] and correlation is not None and correlation <= CORRELATION:
            falling.append(name)
    return tuple(falling)


#: An auditor counts as falling at this rank correlation with the order of the winners, from so many winners on.
CORRELATION, WINNERS = -0.5, 4


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's: the correlation of ranks, equal scores sharing theirs; None where all scores of one are equal."""
    try:
        return statistics.correlation(_ranks(a), _ranks(b))
    except statistics.StatisticsError:
        return None


def _ranks(scores: Sequence[float]) -> list[float]:
    ordered = sorted(scores)
    return [(bisect_left(ordered, score) + bisect_right(ordered, score)) / 2 for score in scores]
