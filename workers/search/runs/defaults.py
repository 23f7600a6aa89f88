"""What a request leaves open."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from sitsearch.workers.jobs.guides import LOG_PROBABILITY_CLIP
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest, GuideChoice, SamplerChoice
from sitsearch.workers.search.noise import noise_for
from sitsearch.workers.search.registry import ALGORITHMS

_MAX_INDEX_DIGITS = 9


def with_sampler(request: GenerateRequest, default: SamplerChoice, methods: Iterable[SamplerOffer]) -> GenerateRequest:
    """The request with its sampler's open fields filled in.

    Where neither the request nor the model names a stochastic method and the algorithm needs one, it gets the method
    and the amount of noise that `sitsearch.workers.search.noise` has for it, or the first stochastic method there is.

    Args:
        request: as it came.
        default: the model's own sampler.
        methods: what the model can be sampled with.
    """
    given = {name: getattr(request.sampler, name) for name in request.sampler.model_fields_set}
    search = ALGORITHMS.get(request.search.algorithm)
    noise = dict(noise_for(search)) if search else {}
    stochastic = [method.name for method in methods if method.stochastic]
    method = given.get("method", default.method)
    if search and search.stochastic and "method" not in given and method not in stochastic and stochastic:
        method = given["method"] = noise["method"] if noise.get("method") in stochastic else stochastic[0]
    named = "method" in request.sampler.model_fields_set and method in stochastic
    if noise.pop("method", method) == method and not named:
        given = noise | given
    return request.model_copy(update={"sampler": default.model_copy(update=given)})


def is_log_probability(low: float | None, high: float | None) -> bool:
    """Whether a verifier's scores, by their bounds, are log-probabilities; None and infinity are no bound."""
    return low in (None, -math.inf) and high == 0


def with_guide(
    request: GenerateRequest,
    differentiable: Collection[str],
    auditors: Sequence[str],
    log_probabilities: Collection[str] = (),
) -> GenerateRequest:
    """The request with what it leaves open about guidance filled in.

    A guide without a verifier follows the first of those that select which has gradients. `auto`, which chooses what it
    guides, gets a guide where there are auditors. A search that is guided by a gradient, or by the scores of other
    samples, and names no auditors gets the default ones, unless it asks to go without.

    Args:
        request: as it came.
        differentiable: verifiers that have gradients.
        auditors: the default ones, of those that can judge what the request asks for.
        log_probabilities: verifiers whose scores are such, see `GradientOptions.clip`.
    """
    guide, search = request.guide, ALGORITHMS.get(request.search.algorithm)
    if request.condition.is_many or (guide is not None and not guide.enabled):
        return request
    able = [name for name in request.verifier.names if name in differentiable]
    taken = {*request.verifier.names, guide.verifier if guide and guide.verifier else next(iter(able), "")}
    default = tuple(name for name in auditors if name not in taken)
    if guide is None and able and getattr(search, "chooses_guide", False) and (request.auditors or default):
        guide = GuideChoice(verifier=able[0])
    elif guide is not None and guide.verifier is None and able:
        guide = guide.model_copy(update={"verifier": able[0]})
    if guide is not None and guide.clip is None and guide.verifier in log_probabilities:
        guide = guide.model_copy(update={"clip": LOG_PROBABILITY_CLIP})
    steered = guide is not None or getattr(search, "steers", False)
    unaudited = guide is not None and guide.unaudited
    audited = request.auditors or (default if steered and not unaudited else ())
    return request.model_copy(update={"guide": guide, "auditors": audited})


def class_index(wanted: str | int | None, classes: Sequence[str]) -> int | None:
    """The class by name, or else by index (a number, or its decimal digits where no class has that name), or None."""
    if wanted in classes:
        return classes.index(str(wanted))
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdecimal() and len(wanted) <= _MAX_INDEX_DIGITS:
        wanted = int(wanted)
    return wanted if isinstance(wanted, int) and 0 <= wanted < len(classes) else None
