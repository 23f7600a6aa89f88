"""The sampling methods, with what they cost."""

from __future__ import annotations

from sitsearch.models.samplers import SAMPLERS, make_sampler
from sitsearch.workers.jobs.offer import SamplerOffer

METHODS = {
    name: SamplerOffer(
        name=name,
        evaluations_per_step=method.evaluations_per_step,
        stochastic=method.stochastic,
        adaptive=method.adaptive,
        noise_first=make_sampler(name, steps=2).noise_at_start,
    )
    for name, method in SAMPLERS.items()
}
