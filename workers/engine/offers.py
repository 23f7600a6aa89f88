"""The sampling methods, with what they cost."""

from __future__ import annotations

from sitsearch.models.samplers import SAMPLERS, make_sampler
from sitsearch.workers.errors import UnknownName
from sitsearch.workers.jobs.offer import SamplerOffer

METHODS = {
    name: SamplerOffer(
        name=name,
        evaluations_per_step=method.evaluations_per_step,
        stochastic=method.stochastic,
        adaptive=method.adaptive,
        ends=method.ends,
        inner=method.inner,
        noise_first=make_sampler(name, steps=2).noise_at_start,
    )
    for name, method in SAMPLERS.items()
}


def method_named(name: str) -> SamplerOffer:
    """What a step of the sampling method `name` costs.

    Raises:
        UnknownName: there is none of that name.
    """
    if name not in METHODS:
        raise UnknownName("sampling method", name, METHODS)
    return METHODS[name]
