"""Every sampler setting on the bundled network gives finite images."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator
from sitsearch.models.diffusion import DIFFUSIONS
from sitsearch.models.generator import Generator
from sitsearch.models.interpolants import INTERPOLANTS
from sitsearch.models.noise import gaussian
from sitsearch.models.samplers import SAMPLERS, make_sampler
from sitsearch.models.samplers.sde import LAST_STEPS
from tests.models.problems import Field, run

PREDICTIONS = ("velocity", "score", "noise")


@pytest.fixture(scope="module")
def generator() -> Generator:
    return load_generator("glyphs")


@pytest.fixture(scope="module")
def field(generator: Generator) -> Field:
    def evaluate(x: Tensor, t: Tensor) -> Tensor:
        return generator.evaluate(x, t, torch.zeros(len(x), dtype=torch.int64))

    return evaluate


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_every_setting_is_finite(generator: Generator, field: Field, path: str, prediction: str) -> None:
    """The network is read as a prediction that it was not trained for: wrong images, but numbers all the same."""
    x = gaussian(0, 0, 0, (1, *generator.shape))
    options: list[tuple[str, dict[str, object]]] = [
        (method, {"steps": 4}) for method, kind in SAMPLERS.items() if not kind.stochastic
    ]
    stochastic = [method for method, kind in SAMPLERS.items() if kind.stochastic]
    options += [
        (method, {"steps": 3, "diffusion": form, "last_step": last})
        for method, form, last in itertools.product(stochastic, DIFFUSIONS, LAST_STEPS)
    ]
    for method, settings in options:
        sampler = make_sampler(method, interpolant=path, prediction=prediction, **settings)  # type: ignore[arg-type]
        assert torch.isfinite(run(sampler, x, field)).all(), (method, settings)
