"""Lessons, and the sums that many of them come to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import NormalDist

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.search.bests import carried_on
from sitsearch.workers.search.calibration import Mark

#: Jobs without which nothing is said of scores.
LEAST_JOBS = 5
#: Powers of two in a number of trajectories beyond those that were seen drawn, to which the best of so many is carried.
BEYOND = 2
#: A gain counts as so many standard deviations at most: a search whose random candidates were all alike has no measure.
MOST_GAIN = 10.0
#: Times are told apart to so many parts of [0, 1], so that the store keeps no more of them.
PARTS = 64
#: No sum of scores is larger: the square of it is a number still.
LARGEST = 1e100
#: Parts of the names of fields in the store.
_SEPARATOR = ":"


class Sums(Schema):
    """Number, sum and sum of squares of some values; a number need not be whole, as what is old counts for less."""

    n: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, values: Iterable[float]) -> Sums:
        """Those of some values."""
        values = list(values)
        return cls(n=len(values), total=math.fsum(values), squares=math.fsum(value * value for value in values))

    @property
    def mean(self) -> float:
        """Of the values; there must be some."""
        return self.total / self.n

    @property
    def variance(self) -> float:
        """Without bias; infinite of one value or less."""
        return max(0.0, self.squares - self.n * self.mean**2) / (self.n - 1) if self.n > 1 else math.inf

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return math.sqrt(self.variance / self.n)


class Drawn(Schema):
    """How the plain random candidates of a search scored.

    Attributes:
        count, mean, squares: their number, mean, and sum of squares about it.
        best: of 1, 2, 4, ... draws of them, as many as there are at most, the mean of the best and of its square.
    """

    count: int
    mean: float
    squares: float
    best: tuple[tuple[float, float], ...]


class Lesson(Schema):
    """What a finished search says.

    Attributes:
        model, verifier, algorithm: by name.
        trajectories: whole ones that its NFE would have bought.
        found: its best score, before a final generation.
        drawn: its random candidates; None where they were too few.
        gain: of `found` on the best that random search is expected to find with the same NFE, in standard deviations of
            the random candidates; None where these do not tell.
        own_options: the request named some of the algorithm's, so that what it found is not what the algorithm finds.
        arms: of the automatic search, gains of passes in the same measure, each for its own NFE.
        marks: of searches that prune, the moments of (score at t, final score).
    """

    model: str
    verifier: str
    algorithm: str
    trajectories: int
    found: float
    drawn: Drawn | None
    gain: float | None
    own_options: bool
    arms: dict[str, Sums]
    marks: tuple[Mark, ...]

    def sums(self) -> dict[str, Sums]:
        """What is added to what others taught, by name.

        spread          of random candidates about their search's mean: degrees of freedom, sum of squares
        best K          best of 2^K random candidates
        arm NAME        gains of an arm's passes
        found NAME K    best scores of an algorithm with 2^K to 2^(K+1) trajectories
        gain NAME K     its gains on random search
        residual T      at time T / 64, what scores there leave unexplained: degrees of freedom, sum of squares
        variance T      and what it were if they explained nothing
        """
        added = {_name("arm", arm): gains for arm, gains in self.arms.items()}
        if self.drawn is not None:
            added[_name("spread")] = Sums(n=self.drawn.count - 1, total=self.drawn.squares)
            for power, (mean, square) in enumerate(self.drawn.best):
                added[_name("best", power)] = Sums(n=1, total=mean, squares=square)
        if not self.own_options:
            band = band_of(self.trajectories)
            added[_name("found", self.algorithm, band)] = Sums.of([self.found])
            if self.gain is not None:
                added[_name("gain", self.algorithm, band)] = Sums.of([self.gain])
        times: dict[int, Unexplained] = {}
        for t, found in unexplained(self.marks).items():
            times[round(t * PARTS)] = times.get(round(t * PARTS), Unexplained()).plus(found)
        for time, found in times.items():
            added[_name("residual", time)] = Sums(n=found.n, total=found.residual)
            added[_name("variance", time)] = Sums(n=found.n, total=found.variance)
        return added


def band_of(trajectories: int) -> int:
    """The power of two at or below a number of trajectories."""
    return trajectories.bit_length() - 1


class Unexplained(Schema):
    """What scores at a time leave unexplained of the variance that final scores have among all trajectories.

    Attributes:
        n: degrees of freedom, of the residuals of final scores about their line.
        residual: the residuals' sum of squares.
        variance: what it were if nothing was explained, `n` times that variance. Both are in units of the variance of
            data predictions in their search.
    """

    n: float = 0.0
    residual: float = 0.0
    variance: float = 0.0

    def plus(self, other: Unexplained) -> Unexplained:
        """Those of two searches, or of two times that are not told apart."""
        return Unexplained(
            n=self.n + other.n, residual=self.residual + other.residual, variance=self.variance + other.variance
        )


def unexplained(marks: Iterable[Mark]) -> dict[float, Unexplained]:
    """What scores at each time leave unexplained, in one search.

    As `sitsearch.workers.search.calibration` corrects for what was pruned: the variance among all follows from the time
    at which most were seen, by the slope that survivors tell. The square of it is too large by the slope's own
    variance, which counts where survivors are few and alike, and is taken off. What a line that falls explains counts
    against the others.
    """
    marks = tuple(marks)
    lines = {mark.t: line for mark in marks if (line := _line(mark)) is not None}
    base = max(marks, key=lambda mark: mark.seen.n, default=None)  # as `Calibration.at`: the first of equals
    if base is None or base.t not in lines or base.variance <= 0:
        return {}
    slope, residual, free = lines[base.t]
    variance = residual / free + (slope**2 - residual / free / base.pairs.xx) * base.variance
    found = {}
    for t, (slope, residual, free) in lines.items():
        left = residual if slope >= 0 else 2 * free * variance - residual
        found[t] = Unexplained(n=free, residual=left / base.variance, variance=free * variance / base.variance)
    return found


def _line(mark: Mark) -> tuple[float, float, float] | None:
    """Slope, residuals' sum of squares and their degrees of freedom; None of fewer than three pairs."""
    pairs = mark.pairs
    if pairs.n < 3 or pairs.xx <= 0:
        return None
    slope = pairs.xy / pairs.xx
    return slope, max(0.0, pairs.yy - slope * pairs.xy), pairs.n - 2


class Expected(Schema):
    """A score that is expected: the mean, and an interval that holds it with probability 0.95.

    Attributes:
        jobs: finished searches that say so.
    """

    score: float
    low: float
    high: float
    jobs: int


class Learnt:
    """What finished searches with a model and a verifier have taught together.

    Args:
        fields: sums by name as the store keeps them; what is not understood is left out.
    """

    def __init__(self, fields: Mapping[str, float] | None = None) -> None:
        parts: dict[str, dict[str, float]] = {}
        for field, value in (fields or {}).items():
            name, _, part = field.rpartition(_SEPARATOR)
            if part in Sums.model_fields and abs(value) < LARGEST:
                parts.setdefault(name, {})[part] = value
        self._sums = {name: Sums(**found) for name, found in parts.items()}

    def arm(self, name: str) -> Sums:
        """Gains of an arm's passes."""
        return self._of("arm", name)

    def gain(self, algorithm: str, trajectories: int) -> Sums:
        """Gains of an algorithm's searches with about so many trajectories."""
        return self._of("gain", algorithm, band_of(trajectories))

    def found(self, algorithm: str, trajectories: int) -> Sums:
        """Best scores of an algorithm's searches with about so many trajectories."""
        return self._of("found", algorithm, band_of(trajectories))

    def best(self, band: int) -> Sums:
        """The best of 2^band random candidates: its variance is that of a new search's best, not of the mean."""
        return self._of("best", band)

    @property
    def spread(self) -> float | None:
        """Standard deviation of random candidates within a search; None where it is not known."""
        sums = self._of("spread")
        return math.sqrt(sums.total / sums.n) if sums.n > 0 and sums.total >= 0 else None

    @property
    def unexplained(self) -> dict[float, Unexplained]:
        """What scores at each time leave unexplained, over all searches; by time, ascending."""
        found = {}
        for time in range(PARTS + 1):
            residual, variance = self._of("residual", time), self._of("variance", time)
            if residual.n > 0 and variance.total > 0:
                found[time / PARTS] = Unexplained(n=residual.n, residual=residual.total, variance=variance.total)
        return found

    def random_best(self, trajectories: int) -> Expected | None:
        """The best that random search is expected to find; None where too few searches tell.

        The spread of the best of so many is that over searches and within them alike, as a new search is of another
        condition too, and Student's t widens it where searches are few. Between two powers of two it is interpolated;
        beyond those that were seen it is carried on, to four times as many.
        """
        known: list[Sums] = []
        while (sums := self.best(len(known))).n >= LEAST_JOBS:
            known.append(sums)
        place, top = math.log2(trajectories), len(known) - 1
        if top < 0 or place > top + BEYOND or (place > top and top < 2):
            return None
        if place >= top:
            jobs, variance, mean = known[top].n, known[top].variance, known[top].mean
            if place > top:
                quarter, half = known[top - 2].mean, known[top - 1].mean
                mean = carried_on(quarter, half, mean, size=2**top, n=trajectories)
        else:
            lower, upper = known[int(place)], known[int(place) + 1]
            share, jobs = place - int(place), upper.n
            mean = lower.mean + share * (upper.mean - lower.mean)
            variance = lower.variance + share * (upper.variance - lower.variance)
        reach = student(jobs - 1) * math.sqrt(variance * (1 + 1 / jobs))
        return Expected(score=mean, low=mean - reach, high=mean + reach, jobs=int(jobs))

    def _of(self, *parts: str | int) -> Sums:
        return self._sums.get(_name(*parts), Sums())


def fields_of(sums: Mapping[str, Sums]) -> dict[str, float]:
    """Sums as the store adds them up, a number a field; what is zero adds nothing."""
    return {
        _SEPARATOR.join((name, part)): value
        for name, found in sums.items()
        for part, value in found.model_dump().items()
        if value
    }


def student(freedom: float, probability: float = 0.975) -> float:
    """The quantile of Student's t, by Abramowitz and Stegun 1964, 26.7.5; within 0.01 from four degrees on."""
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _name(*parts: str | int) -> str:
    return _SEPARATOR.join(map(str, parts))
