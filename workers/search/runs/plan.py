"""How a budget becomes candidates: what the search may spend, and what is reserved for the final generation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sitsearch.workers.errors import BudgetTooSmall, Unsuitable
from sitsearch.workers.jobs.guides import Gradient
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Allowance, Search
from sitsearch.workers.search.registry import ALGORITHMS, options_of
from sitsearch.workers.search.sampling import Sampling

#: Share of a step's noise that a gradient takes where a request leaves it open: as measured on `glyphs`.
NOISE = 0.3


def sampling_of(request: GenerateRequest, method: SamplerOffer) -> Sampling:
    """The request's sampler with what it costs.

    Raises:
        Unsuitable: the settings do not go together.
    """
    if method.stochastic and request.sampler.final_steps is not None:
        message = f"must be left out: {method.name} draws other noises at other steps, so no winner can be re-generated"
        raise Unsuitable("sampler.final_steps", message)
    guide = request.gradient
    if guide is not None and not request.auditors and request.guide is not None and not request.guide.unaudited:
        message = (
            "must name a verifier that neither selects nor guides: a guided search may exploit the errors of the one "
            "it follows. `guide.unaudited` goes without"
        )
        raise Unsuitable("auditors", message)
    if guide is not None and method.adaptive:
        raise Unsuitable("guide", f"goes with methods of fixed steps, not with {method.name}, which chooses its own")
    if guide is not None and not _chooses_guide(request) and guide.noise and not _takes_noise(method):
        message = f"must be 0: {method.name} draws no noise at the end of a step, for a gradient to take a share of"
        raise Unsuitable("guide.noise", message)
    if guide is not None and not _chooses_guide(request) and not guide.strength and not _takes_noise(method):
        raise Unsuitable("guide.strength", f"must be above 0: {method.name} draws no noise for the gradient to be in")
    sampling = Sampling(method=method, choice=request.sampler, guide=guide_by(guide, method))
    if sampling.own_last is not None and request.sampler.steps < 2:
        raise Unsuitable("sampler.steps", f"must be at least 2 for {method.name} with a last_step_size")
    return sampling


def guide_by(guide: Gradient | None, method: SamplerOffer) -> Gradient | None:
    """What guides trajectories of a method: the share of its noise filled in."""
    if guide is None:
        return None
    share = NOISE if guide.noise is None else guide.noise
    return guide.model_copy(update={"noise": share if _takes_noise(method) else 0.0})


def _takes_noise(method: SamplerOffer) -> bool:
    """It draws noise where a step ends, and a gradient is known by then."""
    return method.stochastic and not method.noise_first


def _chooses_guide(request: GenerateRequest) -> bool:
    return getattr(ALGORITHMS[request.search.algorithm], "chooses_guide", False)


def reserved(request: GenerateRequest, sampling: Sampling) -> int:
    """NFE kept for the final generation: `num_images` trajectories of `final_steps` steps."""
    steps = request.sampler.final_steps
    return 0 if steps is None else request.num_images * final(sampling, steps).whole


def gradients_kept(request: GenerateRequest, sampling: Sampling) -> int:
    """Gradients kept for the final generation."""
    steps = request.sampler.final_steps
    return 0 if steps is None else request.num_images * final(sampling, steps).gradients_whole


def final(sampling: Sampling, steps: int) -> Sampling:
    """The same sampler with `steps` steps."""
    return sampling.model_copy(update={"choice": sampling.choice.model_copy(update={"steps": steps})})


def cap(request: GenerateRequest) -> int:
    """The whole budget in NFE: forwards buy at least one evaluation for every `rows` of them."""
    return request.budget.most_nfe(request.sampler.rows)


def steered(request: GenerateRequest, sampling: Sampling, methods: Iterable[SamplerOffer]) -> tuple[Sampling, ...]:
    """The request's sampler by stochastic methods other than its own.

    None with a final generation: other steps would meet other noise.
    """
    if request.sampler.final_steps is not None:
        return ()
    return tuple(
        sampling.model_copy(
            update={
                "method": method,
                "choice": sampling.choice.model_copy(update={"method": method.name}),
                "named": method.name,
                "guide": guide_by(request.gradient, method),
            }
        )
        for method in methods
        if method.stochastic and method.name != sampling.method.name
    )


def plain(sampling: Sampling) -> Sampling:
    """The same without guidance by a verifier."""
    return sampling.model_copy(update={"guide": None})


def start_of(search: Search[Any], request: GenerateRequest) -> Recipe | None:
    """The noise that a request has its search begin with.

    Raises:
        Unsuitable: another search has moved it, and this one can begin with plain noises only.
    """
    noise = None if request.start_from is None else request.start_from.recipe
    if noise is not None and noise.ops and getattr(search, "plain_start", False):
        message = f"algorithm {search.name!r} begins with plain noises, not with one that a search has moved"
        raise Unsuitable("start_from", message)
    return noise


def make_allowance(
    search: Search[Any], request: GenerateRequest, sampling: Sampling, methods: Iterable[SamplerOffer] = ()
) -> Allowance:
    """What `search` may spend once the final generation is reserved.

    Args:
        search, request: what searches, and what for.
        sampling: how.
        methods: all that there are, for searches that use others besides the request's.

    Raises:
        Unsuitable: see `start_of`.
        BudgetTooSmall: the budget does not leave `num_images` finished candidates and their final generation.
        pydantic.ValidationError: an option is unknown or out of range.
    """
    options = options_of(search, request.search)
    reserve, kept = reserved(request, sampling), gradients_kept(request, sampling)
    every = (sampling, *steered(request, sampling, methods))
    chooses = _chooses_guide(request)
    free = tuple(map(plain, every)) if chooses else every
    most = request.budget.gradients
    allowance = Allowance(
        seed=request.seed,
        nfe=cap(request) - reserve,
        keep=request.num_images,
        sampling=free[0],
        steered=free[1:],
        guided=every if chooses and sampling.guide is not None else (),
        gradients=None if most is None else max(0, most - kept),
        start=start_of(search, request),
    )
    whole = 0 if chooses else request.num_images * sampling.gradients_whole
    if most is not None and most < whole + kept:
        raise BudgetTooSmall("gradients", most, whole + kept)
    least = search.least(allowance, options)
    if allowance.nfe < least:
        needed = {"nfe": least + reserve, "forwards": (least + reserve) * request.sampler.rows}
        for unit, value in needed.items():
            given = getattr(request.budget, unit)
            if given is not None and given < value:
                raise BudgetTooSmall(unit, given, value)
    return allowance
