"""Which kind of run a request asks for."""

from __future__ import annotations

from collections.abc import Iterable

from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.runs.adaptive import AdaptiveRun
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.sets import SetRun

Run = SearchRun | SetRun | AdaptiveRun

#: Why a verifier of sets is refused where one condition is asked for.
JUDGES_SETS = (
    "verifier {name!r} judges sets of images and goes with `condition.classes`; a class or a prompt takes one that "
    "judges each image by itself"
)
#: Why a verifier is refused as a guide.
NO_GRADIENTS = "verifier {name!r} has no gradients to follow; those that have: {able}"


def start_run(request: GenerateRequest, method: SamplerOffer, methods: Iterable[SamplerOffer] = ()) -> Run:
    """A fresh run of the request: over one condition, or over many.

    Args:
        request, method, methods: see `SearchRun`.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun` and `ManyRun`.
    """
    if not request.condition.is_many:
        return SearchRun(request, method, methods)
    return (AdaptiveRun if request.allocation == "adaptive" else SetRun)(request, method)
