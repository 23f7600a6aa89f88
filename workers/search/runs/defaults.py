"""What a request leaves open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice

_MAX_INDEX_DIGITS = 9


def with_sampler(
    request: GenerateRequest, default: SamplerChoice, methods: Iterable[SamplerOffer], *, stochastic: bool
) -> GenerateRequest:
    """The request with its sampler's open fields filled in.

    Args:
        request: as it came.
        default: the model's own sampler.
        methods: what the model can be sampled with.
        stochastic: the algorithm needs a stochastic method; where the request names none, it gets the first one.
    """
    given = {name: getattr(request.sampler, name) for name in request.sampler.model_fields_set}
    known = {method.name: method for method in methods}
    if stochastic and "method" not in given and not (default.method in known and known[default.method].stochastic):
        suited = stochastic_among(known.values())
        given |= {"method": suited.name} if suited else {}
    return request.model_copy(update={"sampler": default.model_copy(update=given)})


def stochastic_among(methods: Iterable[SamplerOffer]) -> SamplerOffer | None:
    """The stochastic method that a search gets which needs one, where the request names none: the first."""
    return next((method for method in methods if method.stochastic), None)


def class_index(wanted: str | int | None, classes: Sequence[str]) -> int | None:
    """The class by name, or else by index (a number, or its decimal digits where no class has that name), or None."""
    if wanted in classes:
        return classes.index(str(wanted))
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdecimal() and len(wanted) <= _MAX_INDEX_DIGITS:
        wanted = int(wanted)
    return wanted if isinstance(wanted, int) and 0 <= wanted < len(classes) else None
