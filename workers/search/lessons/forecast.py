"""What finished searches let expect of a request: for its plan. Nothing is said where nothing is known."""

from __future__ import annotations

from typing import Any

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.algorithms.arms import ARMS, can_be_had
from sitsearch.workers.search.base import Allowance
from sitsearch.workers.search.lessons.priors import as_it_comes
from sitsearch.workers.search.lessons.record import LEAST_JOBS, Expected, Learnt, Sums, band_of
from sitsearch.workers.search.registry import ALGORITHMS, options_of

#: Standard errors by which random search must have done better before a plan warns.
ERRORS = 2.0


class ArmPrior(Schema):
    """An arm of the automatic search, and the gain on random search that it is begun with, in standard deviations."""

    arm: str
    prior: float


class Forecast(Schema):
    """What is expected of a request's best score.

    Attributes:
        random: what random search would find with the same budget.
        score: what the request's own algorithm is expected to find.
        arms: of the automatic search, those that could be begun, by their priors.
        share: of the automatic search, the part of the NFE that goes to random search.
        warning: random search did better.
        explanation: the same in sentences.
    """

    random: Expected | None = None
    score: float | None = None
    arms: tuple[ArmPrior, ...] = ()
    share: float | None = None
    warning: str | None = None
    explanation: tuple[str, ...] = ()


def forecast(
    request: GenerateRequest, allowance: Allowance, learnt: Learnt, bounds: tuple[float | None, float | None]
) -> Forecast:
    """What is expected of a request.

    Args:
        request: for one condition, with what was learnt filled in.
        allowance: what its search may spend.
        learnt: with its model and verifier.
        bounds: least and largest score of the verifier.
    """
    algorithm, trajectories = request.search.algorithm, allowance.nfe // allowance.sampling.whole
    random = score = warning = None
    if request.verifier.members is None and not allowance.sampling.method.adaptive:
        random = _within(learnt.random_best(trajectories), bounds)
        if algorithm != "random" and as_it_comes(request.search):
            score = _expected(algorithm, trajectories, learnt, random, bounds)
            warning = _warning(algorithm, trajectories, learnt)
    arms, share = _intended(request, allowance) if algorithm == "auto" else ((), None)
    found = Forecast(random=random, score=score, arms=arms, share=share, warning=warning)
    return found.model_copy(update={"explanation": _explain(found, request, trajectories)})


def _expected(
    algorithm: str,
    trajectories: int,
    learnt: Learnt,
    random: Expected | None,
    bounds: tuple[float | None, float | None],
) -> float | None:
    """The best of random search, and what the algorithm gained on it; or else what the algorithm found."""
    gains, spread = learnt.gain(algorithm, trajectories), learnt.spread
    if random is not None and spread is not None and gains.n >= LEAST_JOBS:
        return _bounded(random.score + gains.mean * spread, bounds)
    found = learnt.found(algorithm, trajectories)
    return _bounded(found.mean, bounds) if found.n >= LEAST_JOBS else None


def _warning(algorithm: str, trajectories: int, learnt: Learnt) -> str | None:
    """That random search did better: by gains within searches, or else by scores of searches of both kinds.

    Scores are held against the best of as many random candidates as the smallest of the searches had.
    """
    gains, searches = learnt.gain(algorithm, trajectories), "searches with about this budget here"
    if gains.n >= LEAST_JOBS:
        if gains.mean >= -ERRORS * gains.error:
            return None
        return (
            f"random search may do better: {int(gains.n)} {searches} by {algorithm} found {-gains.mean:.2f} standard "
            "deviations less than it is expected to find"
        )
    found, random = learnt.found(algorithm, trajectories), learnt.best(band_of(trajectories))
    if min(found.n, random.n) < LEAST_JOBS or _apart(random, found) <= ERRORS:
        return None
    return (
        f"random search may do better: {int(found.n)} {searches} by {algorithm} found {found.mean:.4g} on average, and "
        f"the best of as many random candidates is {random.mean:.4g}"
    )


def _apart(higher: Sums, lower: Sums) -> float:
    """By how many standard errors two means differ."""
    error = (higher.error**2 + lower.error**2) ** 0.5
    difference = higher.mean - lower.mean
    return difference / error if error > 0 else ERRORS + 1 if difference > 0 else 0.0


def _intended(request: GenerateRequest, allowance: Allowance) -> tuple[tuple[ArmPrior, ...], float]:
    """The arms that the automatic search could begin, the most promising first, and its share of random search."""
    options: Any = options_of(ALGORITHMS["auto"], request.search)
    open_arms = [name for name in options.arms if can_be_had(name, allowance)]
    priors = {name: options.priors.get(name, ARMS[name].prior) for name in open_arms}
    ordered = sorted(priors, key=lambda name: -priors[name])
    return tuple(ArmPrior(arm=name, prior=priors[name]) for name in ordered), options.share


def _explain(found: Forecast, request: GenerateRequest, trajectories: int) -> tuple[str, ...]:
    lines, algorithm = [], request.search.algorithm
    if found.share is not None:
        arms = ", ".join(f"{arm.arm} {arm.prior:+.2f}" for arm in found.arms)
        lines.append(
            f"auto: {100 * found.share:g}% of the NFE to random search, the rest to passes of other searches, by the "
            f"gain that is expected of each, in standard deviations: {arms or 'none'}"
        )
    if found.random is not None:
        near = found.random
        lines.append(
            f"expected of random search with this budget, {trajectories:,} trajectories: {near.score:.4g}, with "
            f"probability 0.95 from {near.low:.4g} to {near.high:.4g}; by {near.jobs} searches with {request.model} "
            f"and {request.verifier.name} here"
        )
    if found.score is not None:
        lines.append(f"expected of {algorithm}: {found.score:.4g}")
    if found.warning is not None:
        lines.append(f"warning: {found.warning}")
    return tuple(lines)


def _within(found: Expected | None, bounds: tuple[float | None, float | None]) -> Expected | None:
    if found is None:
        return None
    return found.model_copy(update={name: _bounded(getattr(found, name), bounds) for name in ("score", "low", "high")})


def _bounded(score: float, bounds: tuple[float | None, float | None]) -> float:
    low, high = bounds
    return max(score if low is None else low, min(score, score if high is None else high))
