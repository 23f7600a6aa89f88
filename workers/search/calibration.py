"""Calibration: what the score of a data prediction D(x, t) says of the final score.

A search that finishes a trajectory learns a pair: what its data prediction scored at time t, and what its image scored
in the end. Of the pairs at a time a linear regression is fitted,

    final = intercept + slope score + residual N(0, 1),

so that a trajectory midway has a predicted final score, mean or quantile, and scores at different times have one scale.

Only survivors are finished. They were chosen by the regressor, which leaves slope, intercept and residual unbiased, but
their scores are narrow, and a slope fitted to few narrow scores is wild. Hence the prior: it counts as `n` further
pairs, spread as widely as all scores that were seen at that time, finished or not, and lying on its own line. The fit
is the least-squares line through pairs and prior together, which is the mean of the normal-inverse-gamma posterior of
Bayesian linear regression. A prior that names a correlation alone knows no scale: it takes the spread of final scores
from the pairs, and until there are any that of the scores at the time; its line goes through the mean of the pairs.

The correlation of a fit is that among all trajectories, not among the survivors: the residual's variance is held
against the variance that final scores would have had, had all been finished (Pearson's correction for restriction of
range). That one follows from the fit at the time at which most were seen, before the others were pruned.

Under an ensemble, whose scores change as more candidates are seen, a pair counts as it was when its image was scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import NormalDist

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Time
from sitsearch.workers.search.base import Scored, score_of
from sitsearch.workers.search.passes import PassState

NORMAL = NormalDist()
#: Pairs that a prior counts as, unless it says otherwise, and at most when it comes from other searches.
PRIOR_PAIRS, MOST_PRIOR_PAIRS = 4.0, 32.0
#: Iterations in which the spread of final scores and a slope that follows from it are made to agree.
ITERATIONS = 20


class Prior(Schema):
    """What is held of a time before a pair was seen there; a `Fit` of another search has the same fields.

    Attributes:
        t: time of the data prediction.
        correlation: of its score with the final score, among all trajectories.
        slope, intercept, residual: of the regression; None where only the correlation is known.
        n: pairs that it counts as.
    """

    t: Time
    correlation: float = Field(ge=-1, le=1)
    slope: float | None = None
    intercept: float | None = None
    residual: float | None = Field(None, ge=0)
    n: float = Field(PRIOR_PAIRS, gt=0, le=1e6)


#: Rank correlations of `glyphs` and its classifier, without guidance.
GLYPHS = (
    Prior(t=0.0, correlation=0.3),
    Prior(t=0.125, correlation=0.5),
    Prior(t=0.25, correlation=0.7),
    Prior(t=0.5, correlation=0.9),
)
#: At the end the data prediction is the image.
_END = Prior(t=1.0, correlation=1.0, slope=1.0, intercept=0.0, residual=0.0)


class Fit(Schema):
    """The regression at a time.

    Attributes:
        t: time of the data prediction.
        n: pairs that were seen.
        correlation: of its score with the final score, among all trajectories.
        slope, intercept: of the line.
        residual: standard deviation about it; 0 before any score was seen, as the scale is not known.
    """

    t: float
    n: int
    correlation: float
    slope: float
    intercept: float
    residual: float

    def mean(self, score: float) -> float:
        """The predicted final score of a trajectory whose data prediction scores `score`."""
        return self.intercept + self.slope * score

    def quantile(self, score: float, q: float) -> float:
        """The score below which its final score lies with probability `q`, in (0, 1)."""
        return self.mean(score) + NORMAL.inv_cdf(q) * self.residual


class Moments(Schema):
    """Sufficient statistics of pairs (x, y): their number, means, and centred sums of squares and products."""

    n: float = 0.0
    x: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    yy: float = 0.0

    def merged(self, other: Moments) -> Moments:
        """Those of both sets of pairs (Chan, Golub and LeVeque 1983)."""
        n = self.n + other.n
        if not n:
            return self
        share, dx, dy = other.n / n, other.x - self.x, other.y - self.y
        between = self.n * share
        return Moments(
            n=n,
            x=self.x + share * dx,
            y=self.y + share * dy,
            xx=self.xx + other.xx + between * dx * dx,
            xy=self.xy + other.xy + between * dx * dy,
            yy=self.yy + other.yy + between * dy * dy,
        )

    def with_pairs(self, pairs: Iterable[tuple[float, float]]) -> Moments:
        """Those with further pairs."""
        moments = self
        for x, y in pairs:
            moments = moments.merged(Moments(n=1.0, x=x, y=y))
        return moments


class Mark(Schema):
    """What was seen at a time.

    Attributes:
        t: the time.
        seen: of the scores of all data predictions there, each paired with itself.
        pairs: of (score there, final score) of those that were finished.
    """

    t: float
    seen: Moments = Moments()
    pairs: Moments = Moments()

    @property
    def variance(self) -> float:
        """Of all scores there; 0 if there are none."""
        return self.seen.xx / self.seen.n if self.seen.n else 0.0


class Calibration(Schema):
    """Regressions by time, from a prior and what a search has told.

    Attributes:
        prior: ascending by time; between two of them they are interpolated, and to a perfect prediction at t = 1.
        marks: what was seen, ascending by time.
    """

    prior: tuple[Prior, ...] = GLYPHS
    marks: tuple[Mark, ...] = ()

    def see(self, t: float, scores: Iterable[float]) -> Calibration:
        """With the scores of data predictions at time `t`."""
        mark = self._mark(t)
        seen = mark.seen.with_pairs((score, score) for score in scores)
        return self._replaced(mark.model_copy(update={"seen": seen}))

    def learn(self, t: float, pairs: Iterable[tuple[float, float]]) -> Calibration:
        """With pairs (score at time `t`, final score)."""
        mark = self._mark(t)
        return self._replaced(mark.model_copy(update={"pairs": mark.pairs.with_pairs(pairs)}))

    def at(self, t: float) -> Fit:
        """The regression at time `t`."""
        if not self.marks:
            return _fit(Mark(t=t), prior_at(self.prior, t), None)
        base = max(self.marks, key=lambda mark: mark.seen.n)  # the first of equals
        fit = _fit(base, prior_at(self.prior, base.t), None)
        if base.t == t:
            return fit
        return _fit(self._mark(t), prior_at(self.prior, t), fit.slope**2 * base.variance + fit.residual**2)

    @property
    def fits(self) -> tuple[Fit, ...]:
        """The regression at every time at which something was seen."""
        return tuple(self.at(mark.t) for mark in self.marks)

    def _mark(self, t: float) -> Mark:
        return next((mark for mark in self.marks if mark.t == t), Mark(t=t))

    def _replaced(self, mark: Mark) -> Calibration:
        marks = sorted((*(other for other in self.marks if other.t != mark.t), mark), key=lambda mark: mark.t)
        return self.model_copy(update={"marks": tuple(marks)})


def check_ascending(priors: Sequence[Prior]) -> None:
    """Raise ValueError unless their times ascend: of the option `prior`."""
    if any(a.t >= b.t for a, b in pairwise(priors)):
        raise ValueError("the times t of `prior` must ascend")


def prior_at(priors: Sequence[Prior], t: float) -> Prior:
    """The prior at time `t`, interpolated between its neighbours; what only one of them knows is not known.

    Args:
        priors: at least one, ascending by time.
        t: in [0, 1]; before the first of them it is the first.
    """
    earlier = max((prior for prior in (*priors, _END) if prior.t <= t), key=lambda prior: prior.t, default=priors[0])
    later = min((prior for prior in (*priors, _END) if prior.t > t), key=lambda prior: prior.t, default=earlier)
    share = (t - earlier.t) / (later.t - earlier.t) if earlier.t < t < later.t else 0.0

    def between(a: float | None, b: float | None) -> float | None:
        if share == 0.0:
            return a
        return None if a is None or b is None else a + share * (b - a)

    fields = {name: between(getattr(earlier, name), getattr(later, name)) for name in Prior.model_fields if name != "t"}
    return Prior.model_validate({"t": t, **fields})


def as_prior(fits: Sequence[Fit], most: float = MOST_PRIOR_PAIRS) -> tuple[Prior, ...]:
    """What a finished search has learned, as the prior of another with the same model, sampler and verifier.

    Args:
        fits: of the search's calibration; those without pairs are left out.
        most: pairs that each may count as; other conditions have other regressions.
    """
    return tuple(Prior(**{**fit.model_dump(), "n": min(float(fit.n), most)}) for fit in fits if fit.n)


def _fit(mark: Mark, prior: Prior, variance: float | None) -> Fit:
    """The least-squares line through the pairs and the prior's.

    Args:
        mark: what was seen.
        prior: at that time.
        variance: of final scores, had all trajectories been finished; None: of this fit.
    """
    spread, pairs = mark.variance, mark.pairs
    slope, residual = prior.slope, prior.residual
    if slope is None or residual is None:
        scale = math.sqrt(_final_variance(mark, prior) if variance is None else variance)
        slope = prior.correlation * (scale / math.sqrt(spread) if spread > 0 else 1.0)
        residual = scale * math.sqrt(1 - prior.correlation**2)
    if prior.intercept is None:  # through the pairs
        x, y = (pairs.x, pairs.y) if pairs.n else (mark.seen.x, mark.seen.x)
    else:
        x, y = mark.seen.x, prior.intercept + slope * mark.seen.x
    yy = prior.n * (slope**2 * spread + residual**2)
    own = Moments(n=prior.n, x=x, y=y, xx=prior.n * spread, xy=prior.n * slope * spread, yy=yy)
    both = own.merged(pairs)
    if both.xx > 0:
        slope = both.xy / both.xx
    free = both.n - (prior.intercept is None and pairs.n > 0)  # the line's mean was then taken from the pairs
    squared = max(0.0, both.yy - slope * both.xy) / free
    total = slope**2 * spread + squared if variance is None else variance
    correlation = prior.correlation
    if total > 0 and mark.seen.n:
        correlation = math.copysign(math.sqrt(max(0.0, 1 - squared / total)), slope)
    return Fit(
        t=mark.t,
        n=round(pairs.n),
        correlation=correlation,
        slope=slope,
        intercept=both.y - slope * both.x,
        residual=math.sqrt(squared),
    )


def _final_variance(mark: Mark, prior: Prior) -> float:
    """The variance of final scores, had all trajectories been finished, of which only the correlation is known.

    That of the pairs, and what the line makes of the spread that they lack; the spread of the scores at the mark counts
    as one more pair. A fixed point, as the prior's slope is in proportion to it; iterations contract.
    """
    spread, pairs = mark.variance, mark.pairs
    variance, width = spread, pairs.xx + prior.n * spread
    if width == 0:
        return pairs.yy / pairs.n if pairs.n else 0.0
    for _ in range(ITERATIONS if pairs.n else 0):
        slope = (pairs.xy + prior.n * prior.correlation * math.sqrt(variance * spread)) / width
        lacking = max(0.0, pairs.n * spread - pairs.xx)
        variance = (spread + pairs.yy + slope**2 * lacking) / (1 + pairs.n)
    return variance


class CalibratedState(PassState):
    """Base of the state of a search that prunes by predicted final scores.

    Attributes:
        known: the regressions, and what they are made from.
        best: the best finished candidates, best first, as many as the request wants.
        drawn: trajectories drawn so far, finished or not.
    """

    known: Calibration
    best: tuple[Scored, ...] = ()
    drawn: int = 0

    @property
    def calibration(self) -> tuple[Fit, ...]:
        """The regressions as they are by now, ascending by time; `as_prior` hands them to another search."""
        return self.known.fits

    @property
    def incumbent(self) -> float | None:
        """The score that a candidate must reach to be wanted; None while fewer than wanted are finished."""
        return self.best[-1].score if len(self.best) == self.allowance.keep else None

    def judging(self, quantile: float | None) -> float:
        """The quantile of the final score that trajectories are judged by.

        Args:
            quantile: of the options; None: 1 - 1 / (N + 1), N the trajectories drawn so far. As 1 / (N + 1) is the
                chance that one more draw is the best of all, whatever their distribution, a trajectory whose quantile
                is below the incumbent is worth less than a fresh start.
        """
        return 1 - 1 / (max(1, self.drawn) + 1) if quantile is None else quantile

    def with_finished(self, candidates: Sequence[Candidate]) -> tuple[Scored, ...]:
        """`best` after these candidates were told."""
        finished = (Scored(recipe=c.recipe, score=score_of(c)) for c in candidates if c.recipe.finished)
        ranked = sorted((*self.best, *finished), key=lambda scored: -scored.score)  # stable: the first of equals
        return tuple(ranked[: self.allowance.keep])
