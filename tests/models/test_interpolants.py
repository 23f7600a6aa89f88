"""The paths obey their own calculus, at the end points too."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sitsearch.models.diffusion import DIFFUSIONS, diffusion, noise_weight
from sitsearch.models.interpolants import INTERPOLANTS, PREDICTIONS, VP, Interpolant, interpolant_named

PATHS = [interpolant_named(name) for name in INTERPOLANTS]
EVERY = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
PAIRS = list(itertools.product(PREDICTIONS, repeat=2))
INSIDE = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


def _exact(path: Interpolant, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """x_t and all four predictions of known data and noise."""
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(len(t), 3, generator=generator, dtype=t.dtype) for _ in range(2))
    x = path.interpolate(data, noise, t)
    score = -noise / path.sigma(t)[:, None]
    return x, {"data": data, "noise": noise, "velocity": path.velocity_target(data, noise, t), "score": score}


@EVERY
def test_derivatives_are_those_of_the_coefficients(path: Interpolant) -> None:
    t = INSIDE.clone().requires_grad_()
    for value, derivative in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        (slope,) = torch.autograd.grad(value(t).sum(), t)
        torch.testing.assert_close(derivative(INSIDE), slope, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(path.d_log_alpha(INSIDE), path.d_alpha(INSIDE) / path.alpha(INSIDE))


@EVERY
def test_paths_lead_from_noise_to_data(path: Interpolant) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(path.sigma(ends), torch.tensor([1.0, 0.0], dtype=torch.float64), rtol=0, atol=1e-4)
    torch.testing.assert_close(path.alpha(ends), torch.tensor([0.0, 1.0], dtype=torch.float64), rtol=0, atol=1e-2)


@EVERY
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_every_prediction_converts_to_every_other(path: Interpolant, source: str, target: str) -> None:
    x, exact = _exact(path, INSIDE)
    converted = path.convert(exact[source], x, INSIDE, source, target)
    torch.testing.assert_close(converted, exact[target], rtol=1e-9, atol=1e-9)


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_conversions_are_finite_at_both_ends(path: Interpolant, dtype: torch.dtype, source: str, target: str) -> None:
    t = torch.tensor([0.0, 1.0], dtype=dtype)
    x = torch.ones(2, 3, dtype=dtype)
    assert torch.isfinite(path.convert(0.5 * x, x, t, source, target)).all()


@EVERY
def test_velocity_gives_noise_and_data_exactly_at_both_ends(path: Interpolant) -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64)
    data, noise = torch.ones(2, 3, dtype=t.dtype), torch.full((2, 3), -2.0, dtype=t.dtype)
    x = path.interpolate(data, noise, t)
    if path.name == "VP":  # its velocity is infinite at t=1 wherever there is noise
        noise[1] = 0
    velocity = path.velocity_target(data, noise, t)
    torch.testing.assert_close(path.convert(velocity, x, t, "velocity", "noise"), noise, rtol=0, atol=1e-9)
    torch.testing.assert_close(path.convert(velocity, x, t, "velocity", "data"), data, rtol=0, atol=1e-9)


def test_an_unknown_prediction_or_interpolant_is_refused() -> None:
    x, t = torch.ones(1, 3), torch.tensor([0.5])
    with pytest.raises(ValueError, match="velocty"):
        PATHS[0].convert(x, x, t, "velocty", "data")
    with pytest.raises(ValueError, match="Linear, GVP, VP"):
        interpolant_named("linear")
    with pytest.raises(ValueError, match="beta_min"):
        VP(beta_min=-1.0)


# --- re-noising --------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize(("t", "to"), [(0.9, 0.1), (0.89, 0.11), (0.5, 0.45), (1.0, 0.3), (0.7, 0.0), (0.6, 0.6)])
def test_renoising_reaches_the_earlier_marginal(path: Interpolant, t: float, to: float) -> None:
    """By algebra, so without sampling error: r alpha(t) = alpha(to), r^2 sigma(t)^2 + added^2 = sigma(to)^2."""
    at, target = torch.tensor(t, dtype=torch.float64), torch.tensor(to, dtype=torch.float64)
    one, zero = torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    ratio = path.renoise(one, at, target, zero)
    added = path.renoise(zero, at, target, one)
    torch.testing.assert_close((ratio * path.alpha(at)).squeeze(), path.alpha(target), atol=1e-12, rtol=1e-12)
    variance = (ratio * path.sigma(at)).square() + added.square()
    torch.testing.assert_close(variance.squeeze(), path.sigma(target).square(), atol=1e-12, rtol=1e-12)


@EVERY
def test_rows_are_renoised_each_from_and_to_its_own_time(path: Interpolant) -> None:
    x, noise = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    t, to = torch.tensor([0.9, 0.5]), torch.tensor([0.2, 0.4])
    both = path.renoise(x, t, to, noise)
    for row in range(2):
        one = path.renoise(x[row : row + 1], t[row], to[row], noise[row : row + 1])
        torch.testing.assert_close(both[row : row + 1], one)


def test_renoising_to_a_later_time_is_refused() -> None:
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="earlier"):
        PATHS[0].renoise(x, torch.tensor([0.5, 0.5]), torch.tensor([0.4, 0.6]), x)


# --- diffusion coefficients --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("form", DIFFUSIONS)
def test_the_noise_weight_is_the_diffusion_over_sigma(path: Interpolant, form: str) -> None:
    expected = diffusion(form, path, INSIDE, 1.3) / path.sigma(INSIDE)
    torch.testing.assert_close(noise_weight(form, path, INSIDE, 1.3), expected, rtol=1e-9, atol=1e-9)


@EVERY
@pytest.mark.parametrize("form", DIFFUSIONS)
@pytest.mark.parametrize("norm", [0.5, 1.0, 2.0])
def test_coefficients_are_finite_and_not_negative_at_both_ends(path: Interpolant, form: str, norm: float) -> None:
    t = torch.tensor([0.0, 1.0])
    for value in (diffusion(form, path, t, norm), noise_weight(form, path, t, norm)):
        assert torch.isfinite(value).all() and (value >= -1e-6).all()


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match="increasing-decreasing"):
        diffusion("inccreasing-decreasing", PATHS[0], INSIDE)
