"""The losses are the paper's: their minimum is the exact prediction, and they agree where theory says they do."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from sitsearch.models.interpolants import INTERPOLANTS, interpolant_named, like
from sitsearch.models.training.losses import alignment, contrast, flow_loss, train_interval

PATHS = pytest.mark.parametrize("path", list(INTERPOLANTS))


def batch(path: str, rows: int = 16) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Data, noise, times away from the ends, x_t, and some network's output."""
    generator = torch.Generator().manual_seed(0)
    data, noise, output = torch.randn(3, rows, 2, 3, 3, generator=generator, dtype=torch.float64)
    t = 0.05 + 0.9 * torch.rand(rows, generator=generator, dtype=torch.float64)
    return data, noise, t, interpolant_named(path).interpolate(data, noise, t), output


@PATHS
@pytest.mark.parametrize(
    ("kind", "weighting"),
    [("velocity", "none"), *itertools.product(("score", "noise"), ("none", "velocity", "likelihood"))],
)
def test_the_truth_has_no_loss_and_anything_else_has_some(path: str, kind: str, weighting: str) -> None:
    data, noise, t, _, output = batch(path)
    interpolant = interpolant_named(path)
    truth = {
        "velocity": interpolant.velocity_target(data, noise, t),
        "noise": noise,
        "score": -noise / like(interpolant.sigma(t), noise),
    }[kind]
    how = {"interpolant": interpolant, "kind": kind, "weighting": weighting}
    assert flow_loss(truth, data, noise, t, **how).abs().max() < 1e-20  # type: ignore[arg-type]
    loss = flow_loss(output, data, noise, t, **how)  # type: ignore[arg-type]
    assert loss.shape == (16,) and bool((loss > 0).all())


@PATHS
@pytest.mark.parametrize("weighting", ["none", "velocity", "likelihood"])
def test_a_score_and_the_noise_it_stands_for_have_one_loss(path: str, weighting: str) -> None:
    data, noise, t, x, output = batch(path)
    interpolant = interpolant_named(path)
    as_noise = interpolant.convert(output, x, t, "score", "noise")
    of_score, of_noise = (
        flow_loss(value, data, noise, t, interpolant=interpolant, kind=kind, weighting=weighting)
        for kind, value in (("score", output), ("noise", as_noise))
    )
    assert torch.allclose(of_score, of_noise)


@PATHS
def test_velocity_weighting_makes_the_loss_that_of_the_velocity(path: str) -> None:
    data, noise, t, x, output = batch(path)
    interpolant = interpolant_named(path)
    velocity = interpolant.convert(output, x, t, "noise", "velocity")
    as_noise = flow_loss(output, data, noise, t, interpolant=interpolant, kind="noise", weighting="velocity")
    assert torch.allclose(as_noise, flow_loss(velocity, data, noise, t, interpolant=interpolant, kind="velocity"))


@PATHS
def test_likelihood_weighting_is_the_sbdm_diffusion_on_the_score(path: str) -> None:
    # |s - s*|^2 weighted by g^2 / 2 (arXiv 2101.09258, equation 7), g^2 / 2 being the drift's variance.
    data, noise, t, _, output = batch(path)
    interpolant = interpolant_named(path)
    error = output + noise / like(interpolant.sigma(t), noise)
    expected = interpolant.drift_variance(t) * error.square().flatten(1).mean(1)
    how = {"interpolant": interpolant, "kind": "score", "weighting": "likelihood"}
    assert torch.allclose(flow_loss(output, data, noise, t, **how), expected)  # type: ignore[arg-type]


@PATHS
@pytest.mark.parametrize("kind", ["velocity", "score", "noise"])
def test_losses_are_finite_in_float32_to_the_ends_that_are_trained_on(path: str, kind: str) -> None:
    interpolant = interpolant_named(path)
    t = torch.tensor(train_interval(path, kind))
    data, noise, output = torch.randn(3, 2, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    for weighting in ("none",) if kind == "velocity" else ("none", "velocity", "likelihood"):
        loss = flow_loss(output, data, noise, t, interpolant=interpolant, kind=kind, weighting=weighting)
        assert bool(loss.isfinite().all())


def test_train_intervals_are_the_references() -> None:
    assert train_interval("Linear", "velocity") == train_interval("GVP", "velocity") == (0.0, 1.0)
    assert train_interval("GVP", "score") == train_interval("Linear", "noise") == (1e-3, 1 - 1e-3)
    assert train_interval("VP", "velocity") == train_interval("VP", "noise") == (0.0, 1 - 1e-5)
    assert train_interval("Linear", "noise", 0.02) == (0.02, 0.98)


def test_unknown_kinds_and_weightings_are_refused() -> None:
    data, noise, t, _, output = batch("Linear")
    with pytest.raises(ValueError, match="'data'"):
        flow_loss(output, data, noise, t, interpolant=interpolant_named("Linear"), kind="data")
    with pytest.raises(ValueError, match="'much'"):
        flow_loss(output, data, noise, t, interpolant=interpolant_named("Linear"), kind="noise", weighting="much")


def test_the_contrast_is_with_the_neighbour_in_the_batch() -> None:
    target = torch.arange(3.0)[:, None]
    assert contrast(target, target) == pytest.approx((4 + 1 + 1) / 3)


def test_alignment_is_one_where_the_tokens_are_the_centred_features() -> None:
    features = torch.randn(4, 9, 5, generator=torch.Generator().manual_seed(0)) + 3
    assert alignment(features - features.mean((0, 1)), features) == pytest.approx(1)
    assert abs(float(alignment(torch.ones(4, 9, 5), features))) < 0.2
