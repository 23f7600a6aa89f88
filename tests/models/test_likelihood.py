"""log p and inversion on data whose density and noise are known, and on the bundled model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator
from sitsearch.models.condition import Condition
from sitsearch.models.field import Field, conditioned, differentiable
from sitsearch.models.generator import SiTGenerator
from sitsearch.models.guidance import Guidance
from sitsearch.models.interpolants import INTERPOLANTS, Interpolant, Linear, interpolant_named, like
from sitsearch.models.inversion import FIXED_STEP, invert
from sitsearch.models.likelihood import Trace, log_likelihood
from sitsearch.models.samplers import SAMPLERS, make_sampler
from sitsearch.models.samplers.runge_kutta import RungeKutta
from tests.golden.check import analytic_field
from tests.models.problems import GaussianData, run

PREDICTIONS = ("velocity", "score", "noise")
PATHS = pytest.mark.parametrize("path", [interpolant_named(name) for name in INTERPOLANTS], ids=list(INTERPOLANTS))
ORDER = {"euler": 1, "midpoint": 2, "heun": 2, "heun3": 3, "rk4": 4}


def normal_log_p(x: Tensor, mean: Tensor | float, variance: Tensor | float) -> Tensor:
    """`[B]`, log density of independent normals."""
    mean, variance = torch.as_tensor(mean, dtype=torch.float64), torch.as_tensor(variance, dtype=torch.float64)
    return (-0.5 * ((x - mean) ** 2 / variance + torch.log(2 * math.pi * variance))).flatten(1).sum(1)


def images(rows: int = 3, seed: int = 0) -> Tensor:
    noise = torch.randn(rows, 2, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 1.5 + 0.4 * noise


# --- likelihood --------------------------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gaussian_data_have_their_closed_form(path: Interpolant, prediction: str) -> None:
    data, x = GaussianData(path), images()
    result = log_likelihood(
        data.prediction(prediction), x, interpolant=path, prediction=prediction, method="rk4", steps=200
    )
    expected = normal_log_p(x, 1.5, 0.4**2)
    dims = 8
    # Exact where both ends are reached; elsewhere END = 1e-3 is kept from them, and VP's alpha(0) is not quite 0.
    regular = prediction == "velocity" and path.name != "VP"
    assert (result.log_p - expected).abs().max() < (1e-6 if regular else 0.01 * dims)


@PATHS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_between_its_end_points_it_is_the_exact_change_of_density(path: Interpolant, prediction: str) -> None:
    # log p_t1(x) - log p_t0(z) has a closed form too; there the assumption that x_t0 is N(0, I) drops out.
    data, x = GaussianData(path), images()
    result = log_likelihood(
        data.prediction(prediction), x, interpolant=path, prediction=prediction, method="rk4", steps=300, t0=0.1, t1=0.9
    )
    (mean0, var0), (mean1, var1) = (data.moments(torch.tensor(t, dtype=torch.float64)) for t in (0.1, 0.9))
    change = result.log_p - normal_log_p(result.noise, 0.0, 1.0)
    assert torch.allclose(change, normal_log_p(x, mean1, var1) - normal_log_p(result.noise, mean0, var0), atol=1e-6)


@pytest.mark.parametrize("method", FIXED_STEP)
def test_it_converges_with_the_order_of_the_method(method: str) -> None:
    data, x = GaussianData(Linear()), images()
    expected = normal_log_p(x, 1.5, 0.4**2)

    def error(steps: int) -> float:
        result = log_likelihood(data.prediction("velocity"), x, method=method, steps=steps)
        return float((result.log_p - expected).abs().max())

    assert math.log2(error(40) / error(80)) == pytest.approx(ORDER[method], abs=0.35)


def divergence(field: Field, x: Tensor, **how: Any) -> Tensor:
    """The estimate of div v(x, 0.8) `[B]`, read off one step of Euler's method from 0.8 back to 0.5."""
    result = log_likelihood(field, x, method="euler", steps=1, t0=0.5, t1=0.8, **how)
    return (normal_log_p(result.noise, 0.0, 1.0) - result.log_p) / (0.8 - 0.5)


@pytest.mark.parametrize("trace", ["rademacher", "gaussian"])
def test_the_trace_estimator_is_unbiased(trace: Trace) -> None:
    x = torch.randn(2, 2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mixing = torch.randn(18, 18, generator=torch.Generator().manual_seed(2), dtype=torch.float64) / 4

    def field(x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ mixing).reshape(x.shape) * like(t, x)

    t = torch.full((2,), 0.8, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: field(x, t).flatten(1), x).flatten(3)
    exact = torch.stack([jacobian[row, :, row].trace() for row in range(2)])
    assert torch.allclose(divergence(field, x, trace="exact"), exact)
    estimates = torch.stack([divergence(field, x, seed=seed, trace=trace) for seed in range(800)])
    error = (estimates.mean(0) - exact).abs()
    assert bool((error < 4 * estimates.std(0) / 800**0.5).all())
    many = divergence(field, x, probes=800, trace=trace)
    assert bool(((many - exact).abs() < 4 * estimates.std(0) / 800**0.5).all())


def test_probes_are_a_function_of_the_seed_and_the_row() -> None:
    x = images(4)
    mixing = torch.randn(8, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def field(x: Tensor, t: Tensor) -> Tensor:
        return (x.flatten(1) @ mixing).reshape(x.shape)

    def log_p(x: Tensor, seed: int) -> Tensor:
        return log_likelihood(field, x, method="euler", steps=1, t0=0.5, t1=0.8, seed=seed).log_p

    both = log_p(x, seed=3)
    assert torch.equal(both[:2], log_p(x[:2], seed=3))
    assert not torch.equal(both, log_p(x, seed=4))


def test_bits_per_dim_are_counted_for_levels_of_the_data() -> None:
    x = images()
    arguments = {"field": GaussianData(Linear()).prediction("velocity"), "x": x, "method": "rk4", "steps": 40}
    density, levels = log_likelihood(**arguments), log_likelihood(**arguments, bin_width=1 / 127.5)  # type: ignore[arg-type]
    assert torch.allclose(density.bits_per_dim, -density.log_p / (8 * math.log(2)))
    assert torch.allclose(levels.bits_per_dim, density.bits_per_dim + math.log2(127.5))


def test_evaluations_and_products_are_counted() -> None:
    asked = 0

    def field(x: Tensor, t: Tensor) -> Tensor:
        nonlocal asked
        asked += 1
        return -x

    result = log_likelihood(field, images(), method="heun3", steps=5, probes=2)
    assert result.nfe == asked == 15 and result.gradients == 30


def test_what_makes_no_sense_is_refused() -> None:
    x, field = images(), GaussianData(Linear()).prediction("velocity")
    for wrong in ({"probes": 0}, {"trace": "none"}, {"bin_width": 0.0}, {"seed": -1}, {"method": "dopri5"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            log_likelihood(field, x, **wrong)
    with pytest.raises(ValueError, match="does not depend on x"):
        log_likelihood(lambda x, t: torch.ones_like(x), x)


# --- inversion ---------------------------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_noise_of_gaussian_data_is_known(path: Interpolant, prediction: str) -> None:
    # The flow of a Gaussian is affine: it keeps (x - mean) / std.
    data, x = GaussianData(path), images()
    found = invert(data.prediction(prediction), x, interpolant=path, prediction=prediction, method="rk4", steps=300)
    t1 = 1.0 if prediction == "velocity" and path.name != "VP" else 1 - 1e-3
    (mean0, var0), (mean1, var1) = (data.moments(torch.tensor(t, dtype=torch.float64)) for t in (found.t, t1))
    assert torch.allclose(found.noise, mean0 + (x - mean1) / var1.sqrt() * var0.sqrt(), atol=1e-5)


@pytest.mark.parametrize("method", FIXED_STEP)
@pytest.mark.parametrize("path", list(INTERPOLANTS))
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_sampling_from_the_noise_gives_the_image_back(path: str, prediction: str, method: str) -> None:
    data, x = GaussianData(interpolant_named(path)), images()
    field = data.prediction(prediction)

    def error(steps: int) -> float:
        how = {"interpolant": path, "prediction": prediction, "steps": steps}
        noise = invert(field, x, method=method, **how).noise  # type: ignore[arg-type]
        return float((run(make_sampler(method, **how), noise, field) - x).abs().max())  # type: ignore[arg-type]

    # Near a singular end the asymptotic order shows only on fine grids, so there it is only asked to fall.
    coarse, fine = error(80), error(160)
    if prediction == "velocity" and path != "VP":
        assert math.log2(coarse / fine) > ORDER[method] - 0.35
    assert fine < 1e-10 or fine < coarse


def test_every_fixed_step_method_can_be_run_backwards() -> None:
    assert set(FIXED_STEP) == set(ORDER)
    assert all(isinstance(make_sampler(name, steps=2), RungeKutta) for name in FIXED_STEP)
    for name in set(SAMPLERS) - set(FIXED_STEP):
        with pytest.raises(ValueError, match=name):
            invert(analytic_field, images(), method=name)


def test_an_inversion_can_stop_half_way() -> None:
    field, x = GaussianData(Linear()).prediction("velocity"), images()
    half = invert(field, x, method="rk4", steps=60, t0=0.4)
    assert half.t == 0.4 and half.nfe == 240
    assert torch.allclose(run(make_sampler("rk4", steps=60, t0=0.4), half.noise, field), x, atol=1e-6)


# --- the bundled model -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def glyphs() -> SiTGenerator:
    generator = load_generator("glyphs")
    assert isinstance(generator, SiTGenerator)
    return generator


QS = [Condition(class_index=16), Condition(class_index=0)]


def test_a_picture_of_the_bundled_model_comes_back(glyphs: SiTGenerator) -> None:
    field = conditioned(glyphs, QS, Guidance(scale=1.5))
    noise = torch.randn(2, *glyphs.shape, generator=torch.Generator().manual_seed(0))
    x = run(make_sampler("heun", steps=12), noise, field)

    def error(steps: int) -> float:
        found = invert(field, x, steps=steps).noise
        return float((run(make_sampler("heun", steps=steps), found, field) - x).abs().mean())

    coarse, fine = error(6), error(24)
    assert fine < coarse / 3 and fine < 0.05


def test_the_bundled_model_finds_its_own_pictures_likelier_than_noise(glyphs: SiTGenerator) -> None:
    field: Field = differentiable(glyphs, QS)
    noise = torch.randn(2, *glyphs.shape, generator=torch.Generator().manual_seed(0))
    x = run(make_sampler("heun", steps=12), noise, conditioned(glyphs, QS))
    with torch.inference_mode():  # as the engine calls
        own = log_likelihood(field, x, steps=6, probes=2)
        other = log_likelihood(field, noise.clamp(-1, 1), steps=6, probes=2)
    assert bool((own.log_p > other.log_p).all())
    assert torch.allclose(own.noise, invert(conditioned(glyphs, QS), x, steps=6).noise, atol=1e-4)


def test_a_field_is_made_for_its_rows(glyphs: SiTGenerator) -> None:
    with pytest.raises(ValueError, match="2 rows, not 1"):
        conditioned(glyphs, QS)(torch.zeros(1, *glyphs.shape), torch.zeros(1))
