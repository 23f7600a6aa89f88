"""How a budget becomes candidates: what the search may spend, and what is reserved for the final generation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sitsearch.workers.errors import BudgetTooSmall, Unsuitable
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Allowance, Search
from sitsearch.workers.search.registry import options_of
from sitsearch.workers.search.sampling import Sampling


def sampling_of(request: GenerateRequest, method: SamplerOffer) -> Sampling:
    """The request's sampler with what it costs.

    Raises:
        Unsuitable: the settings do not go together.
    """
    if method.stochastic and request.sampler.final_steps is not None:
        message = f"must be left out: {method.name} draws other noises at other steps, so no winner can be re-generated"
        raise Unsuitable("sampler.final_steps", message)
    sampling = Sampling(method=method, choice=request.sampler)
    if sampling.own_last is not None and request.sampler.steps < 2:
        raise Unsuitable("sampler.steps", f"must be at least 2 for {method.name} with a last_step_size")
    return sampling


def reserved(request: GenerateRequest, sampling: Sampling) -> int:
    """NFE kept for the final generation: `num_images` trajectories of `final_steps` steps."""
    steps = request.sampler.final_steps
    return 0 if steps is None else request.num_images * final(sampling, steps).whole


def final(sampling: Sampling, steps: int) -> Sampling:
    """The same sampler with `steps` steps."""
    return sampling.model_copy(update={"choice": sampling.choice.model_copy(update={"steps": steps})})


def cap(request: GenerateRequest) -> int:
    """The whole budget in NFE: forwards buy at least one evaluation for every `rows` of them."""
    budget = request.budget
    caps = [] if budget.nfe is None else [budget.nfe]
    if budget.forwards is not None:
        caps.append(budget.forwards // request.sampler.rows)
    return min(caps)


def steered(request: GenerateRequest, sampling: Sampling, methods: Iterable[SamplerOffer]) -> tuple[Sampling, ...]:
    """The request's sampler by stochastic methods other than its own.

    None with a final generation: other steps would meet other noise.
    """
    if request.sampler.final_steps is not None:
        return ()
    return tuple(
        Sampling(method=method, choice=sampling.choice.model_copy(update={"method": method.name}), named=method.name)
        for method in methods
        if method.stochastic and method.name != sampling.method.name
    )


def make_allowance(
    search: Search[Any], request: GenerateRequest, sampling: Sampling, methods: Iterable[SamplerOffer] = ()
) -> Allowance:
    """What `search` may spend once the final generation is reserved.

    Args:
        search, request: what searches, and what for.
        sampling: how.
        methods: all that there are, for searches that use others besides the request's.

    Raises:
        BudgetTooSmall: the budget does not leave `num_images` finished candidates and their final generation.
        pydantic.ValidationError: an option is unknown or out of range.
    """
    options = options_of(search, request.search)
    reserve = reserved(request, sampling)
    allowance = Allowance(
        seed=request.seed,
        nfe=cap(request) - reserve,
        keep=request.num_images,
        sampling=sampling,
        steered=steered(request, sampling, methods),
    )
    least = search.least(allowance, options)
    if allowance.nfe < least:
        needed = {"nfe": least + reserve, "forwards": (least + reserve) * request.sampler.rows}
        for unit, value in needed.items():
            given = getattr(request.budget, unit)
            if given is not None and given < value:
                raise BudgetTooSmall(unit, given, value)
    return allowance
