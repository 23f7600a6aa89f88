"""The options that a request leaves open, as finished searches would have them.

What was learnt is drawn towards what is shipped, which counts as a few passes or pairs of its own, and where there are
few besides, nothing is filled in. The request that is stored says what was filled in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from sitsearch.workers.jobs.request import GenerateRequest, SearchChoice
from sitsearch.workers.search.algorithms.arms import ARMS
from sitsearch.workers.search.calibration import GLYPHS, MOST_PRIOR_PAIRS, PRIOR_PAIRS, prior_at
from sitsearch.workers.search.lessons.record import Learnt

#: Passes that an arm's shipped prior counts as, and those without which it stays.
SHIPPED_PASSES, LEAST_PASSES = 4, 4
#: Degrees of freedom of the pairs of a time without which its shipped prior stays.
LEAST_PAIRS = 8
#: To how many decimals a prior is written into a request.
DECIMALS = 3


def arm_priors(learnt: Learnt) -> dict[str, float]:
    """The option `priors` of the automatic search: gains of the arms of which enough passes ended.

    The mean over passes, of which `SHIPPED_PASSES` gained what is shipped.
    """
    found = {}
    for name, arm in ARMS.items():
        gains = learnt.arm(name)
        if gains.n >= LEAST_PASSES:
            mean = (SHIPPED_PASSES * arm.prior + gains.total) / (SHIPPED_PASSES + gains.n)
            found[str(name)] = round(mean, DECIMALS)
    return found


def time_priors(learnt: Learnt) -> list[dict[str, float]]:
    """The option `prior` of searches that prune: correlations by time, where enough pairs were seen; empty where none.

    The part of final scores' variance that those at t leave unexplained, 1 - r^2, is the mean over degrees of freedom,
    of which `PRIOR_PAIRS` left what is shipped. Before the first time that was learnt, and after the last, what is
    shipped stands. Slopes and intercepts are left to each search: they have the scale of its condition.
    """
    learned = {}
    for t, found in learnt.unexplained.items():
        if found.n >= LEAST_PAIRS and t < 1:
            shipped = 1 - prior_at(GLYPHS, t).correlation ** 2
            part = found.residual / found.variance
            left = (PRIOR_PAIRS * shipped + found.n * part) / (PRIOR_PAIRS + found.n)
            correlation = math.sqrt(max(0.0, 1 - left))
            learned[t] = (round(correlation, DECIMALS), min(MOST_PRIOR_PAIRS, PRIOR_PAIRS + found.n))
    if not learned:
        return []
    outside = [prior for prior in GLYPHS if not min(learned) <= prior.t <= max(learned)]
    learned |= {prior.t: (prior.correlation, prior.n) for prior in outside}
    return [{"t": t, "correlation": r, "n": round(n, DECIMALS)} for t, (r, n) in sorted(learned.items())]


#: By algorithm, the option that is learnt and what learns it.
LEARNS: dict[str, tuple[str, Callable[[Learnt], Any]]] = {
    "auto": ("priors", arm_priors),
    "paths": ("prior", time_priors),
    "successive_halving": ("prior", time_priors),
}


def as_it_comes(search: SearchChoice) -> bool:
    """The algorithm's options are left as they are, but for those that are learnt."""
    learnt = LEARNS[search.algorithm][0] if search.algorithm in LEARNS else None
    return search.preset == "budget" and not set(search.options) - {learnt}


def leaves_open(request: GenerateRequest) -> bool:
    """The request leaves open what can be learnt; by the preset of a paper, nothing is open."""
    search = request.search
    single = request.verifier.members is None and not request.condition.is_many
    if not single or search.preset != "budget" or search.algorithm not in LEARNS:
        return False
    return LEARNS[search.algorithm][0] not in search.options


def with_learnt(request: GenerateRequest, learnt: Learnt) -> GenerateRequest:
    """The request with what it leaves open filled in, as far as enough was learnt."""
    if not leaves_open(request):
        return request
    option, learn = LEARNS[request.search.algorithm]
    value = learn(learnt)
    if not value:
        return request
    choice = SearchChoice.model_validate({**request.search.model_dump(), option: value})
    return request.model_copy(update={"search": choice})
