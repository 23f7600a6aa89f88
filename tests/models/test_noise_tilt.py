"""Gradients as noise, and how far rewards may steer."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sitsearch.models.noise_tilt import tilted, whitened
from sitsearch.models.steering import damped


def gradients() -> Tensor:
    """`[4, 3, 32, 32]`: a smooth blob, a spike, a constant, and noise."""
    axis = torch.linspace(-2, 2, 32)
    blob = torch.exp(-(axis[:, None] ** 2) - axis[None] ** 2).expand(3, 32, 32)
    spike = torch.zeros(3, 32, 32)
    spike[1, 20, 11] = 3.0
    noise = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    return torch.stack([blob, spike + 1e-3 * noise, torch.full((3, 32, 32), 1e-6) + 1e-9 * noise, noise])


def test_a_whitened_gradient_has_the_moments_and_extremes_of_noise() -> None:
    white = whitened(gradients()).flatten(1)
    assert white.mean(1).abs().max() < 0.15 and (white.std(1) - 1).abs().max() < 0.15
    assert white.abs().amax(1).min() > 2.5 and white.abs().max() < 6


def test_no_frequency_of_a_whitened_gradient_stands_out() -> None:
    power = torch.fft.fftn(whitened(gradients()), dim=(1, 2, 3), norm="ortho").abs().square().flatten(1)
    raw = torch.fft.fftn(gradients(), dim=(1, 2, 3), norm="ortho").abs().square().flatten(1)
    assert (power.amax(1) / power.mean(1)).max() < 60 < (raw.amax(1) / raw.mean(1)).max()


def test_it_keeps_the_gradients_direction_and_leaves_noise_almost_as_it_is() -> None:
    given = gradients()
    cosines = torch.cosine_similarity(whitened(given).flatten(1), given.flatten(1))
    assert cosines.min() > 0.02 and cosines[0] > 0.1 and cosines[3] > 0.98


def test_a_row_gets_the_same_bits_whatever_is_beside_it() -> None:
    given = gradients()
    together = whitened(given)
    for row in range(len(given)):
        assert torch.equal(whitened(given[row : row + 1])[0], together[row])


def test_the_share_is_of_the_variance_and_a_gradient_of_zeros_leaves_the_noise() -> None:
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    given = gradients()
    given[2] = 0
    assert torch.equal(tilted(noise, given, 0.0), noise)
    mixed = tilted(noise, given, 0.36)
    assert torch.equal(mixed[2], noise[2])
    torch.testing.assert_close(mixed[0], 0.6 * whitened(given)[0] + 0.8 * noise[0])


@pytest.mark.parametrize(("strength", "variance", "expected"), [(0.0, 1.0, 0.0), (2.0, 0.0, 2.0), (1.0, 0.5, 0.5)])
def test_damping_spares_what_is_certain(strength: float, variance: float, expected: float) -> None:
    assert damped(strength, variance) == expected
