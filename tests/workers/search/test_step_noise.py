"""The noise of a step, as the samplers themselves have it."""

from __future__ import annotations

import pytest
import torch

from sitsearch.models.diffusion import DIFFUSIONS
from sitsearch.models.diffusion import diffusion as of_the_models
from sitsearch.models.interpolants import INTERPOLANTS, interpolant_named
from sitsearch.models.samplers.base import Spec
from sitsearch.models.samplers.glass import Glass
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.sampling import Sampling
from sitsearch.workers.search.step_noise import diffusion, step_noise

TIMES = (0.1, 0.5, 0.83)
SDE = SamplerOffer(name="euler_maruyama", evaluations_per_step=1, stochastic=True, ends=True)
GLASS = SamplerOffer(name="glass", evaluations_per_step=1, stochastic=True, inner=True)


def choice(**fields: object) -> SamplerChoice:
    """A request's sampler."""
    return SamplerChoice.model_validate(fields)


@pytest.mark.parametrize("path", sorted(INTERPOLANTS))
@pytest.mark.parametrize("form", sorted(DIFFUSIONS))
def test_every_form_of_diffusion_is_that_of_the_models(path: str, form: str) -> None:
    for t in TIMES:
        theirs = of_the_models(form, interpolant_named(path), torch.tensor(t, dtype=torch.float64), 0.7)
        assert diffusion(choice(path=path, diffusion=form, norm=0.7), t) == pytest.approx(float(theirs), rel=1e-9)


def test_without_a_path_it_is_linear() -> None:
    for t in TIMES:
        assert diffusion(choice(), t) == pytest.approx(1 - t)


def test_a_step_of_the_sde_adds_the_root_of_twice_the_diffusion_times_its_size() -> None:
    sampling = Sampling(method=SDE, choice=choice(method="euler_maruyama", diffusion="constant", norm=2.0))
    assert step_noise(sampling, 0.5, 0.55) == pytest.approx((2 * 2.0 * 0.05) ** 0.5)


@pytest.mark.parametrize("path", sorted(INTERPOLANTS))
@pytest.mark.parametrize("rho", [None, 0.0, 0.4, 1.0])
def test_a_step_of_glass_adds_what_its_sampler_says(path: str, rho: float | None) -> None:
    sampling = Sampling(method=GLASS, choice=choice(method="glass", path=path, rho=rho))
    sampler = Glass(Spec(interpolant=interpolant_named(path), steps=10, rho=rho))
    grid = sampler._grid(torch.float64)
    for outer in (1, 4, 7):
        t, to = (float(time) for time in grid[outer : outer + 2])
        theirs = sampler._numbers(outer, torch.float64).b
        assert step_noise(sampling, t, to) == pytest.approx(theirs, rel=1e-6, abs=1e-9)
