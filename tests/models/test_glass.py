"""GLASS: transitions drawn by an inner ODE."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.samplers import make_sampler
from tests.models.problems import GaussianData, run, states

PATHS = ("Linear", "GVP", "VP")
RHOS = (None, 0.0, 0.4, 0.9)
MANY = 20_000


def start(path: str, t: float, rows: int = MANY) -> torch.Tensor:
    """Samples of x_t for `GaussianData`."""
    data = GaussianData(interpolant_named(path))
    mean, variance = data.moments(torch.tensor(t, dtype=torch.float64))
    noise = torch.randn(rows, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return mean + variance.sqrt() * noise


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rho", RHOS)
def test_one_evaluation_a_step_is_ddim(path: str, rho: float | None) -> None:
    field, interpolant = GaussianData(interpolant_named(path)).prediction("noise"), interpolant_named(path)
    times = (0.2, 0.45, 0.9)
    sampler = make_sampler("glass", steps=2, interpolant=path, prediction="noise", times=times, inner=1, rho=rho)
    x = start(path, times[0], rows=50)
    *_, last = states(sampler, x, field, seed=5)
    draws = torch.Generator().manual_seed(5)
    for t, to in itertools.pairwise(times):
        now = torch.full((50,), t, dtype=torch.float64)
        noise = field(x, now)
        data = interpolant.convert(noise, x, now, "noise", "data")
        alpha, sigma, alpha_to, sigma_to = (float(part) for part in (*_at(interpolant, t), *_at(interpolant, to)))
        stays = alpha * sigma_to / (sigma * alpha_to) if rho is None else rho
        fresh = torch.randn(x.shape, generator=draws, dtype=x.dtype)
        x = alpha_to * data + sigma_to * (stays * noise + math.sqrt(1 - stays**2) * fresh)
    torch.testing.assert_close(last.x, x)


def _at(interpolant: object, t: float) -> tuple[torch.Tensor, torch.Tensor]:
    time = torch.tensor(t, dtype=torch.float64)
    return interpolant.alpha(time), interpolant.sigma(time)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("rho", [*RHOS, 1.0])
def test_a_long_step_keeps_the_marginal_whatever_stays_of_the_noise(path: str, rho: float | None) -> None:
    """With many evaluations, one step from t = 0.3 to 0.8 takes samples of p_0.3 to samples of p_0.8."""
    data = GaussianData(interpolant_named(path))
    mean, variance = (float(part) for part in data.moments(torch.tensor(0.8, dtype=torch.float64)))
    found = {}
    for inner in (1, 64):
        sampler = make_sampler(
            "glass", steps=1, interpolant=path, prediction="velocity", times=(0.3, 0.8), inner=inner, rho=rho
        )
        x = run(sampler, start(path, 0.3), data.prediction("velocity"), seed=2)
        found[inner] = abs(float(x.mean()) - mean), abs(float(x.std()) - math.sqrt(variance))
    assert found[64][0] < 0.02 and found[64][1] < 0.02
    if rho != 1.0:
        assert found[64][1] < found[1][1], "one evaluation takes the data prediction for the data: too narrow"


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prediction", ["velocity", "noise", "data", "score"])
@pytest.mark.parametrize("rho", [None, 0.4])
def test_whole_trajectories_end_in_the_data(path: str, prediction: str, rho: float | None) -> None:
    data = GaussianData(interpolant_named(path))
    sampler = make_sampler("glass", steps=4, interpolant=path, prediction=prediction, inner=32, rho=rho)
    noise = torch.randn(MANY, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = run(sampler, noise, data.prediction(prediction), seed=2)
    assert float(x.mean()) == pytest.approx(data.mean, abs=0.02)
    assert float(x.std()) == pytest.approx(data.std, abs=0.03)
    assert sampler.nfe == 128


def test_how_much_stays_is_how_much_alike_two_continuations_are() -> None:
    """Copies of a state part by fresh noise alone: by none of it at rho = 1 and one evaluation a step."""
    data = GaussianData(interpolant_named("Linear"))
    x = start("Linear", 0.4, rows=2000)
    spread = []
    for rho in (0.0, 0.4, 0.8, 1.0):
        sampler = make_sampler("glass", steps=1, times=(0.4, 0.6), inner=1, rho=rho)
        one, other = (run(sampler, x, data.prediction("velocity"), seed=seed) for seed in (3, 4))
        spread.append(float((one - other).std()))
    assert spread == sorted(spread, reverse=True) and spread[-1] == 0.0
    assert spread[0] == pytest.approx(math.sqrt(2) * 0.4, rel=0.05), "sigma at t = 0.6, twice"


@pytest.mark.parametrize(("options", "named"), [({"rho": 1.5}, "rho"), ({"inner": 0}, "inner")])
def test_what_is_out_of_range_is_refused(options: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make_sampler("glass", steps=4, **options)


def test_noise_that_is_wanted_must_be_given() -> None:
    sampler = make_sampler("glass", steps=2, inner=2)
    state = sampler.init(torch.zeros(1, 1))
    assert state.draw == 0
    with pytest.raises(ValueError, match="needs noise"):
        sampler.step(state, torch.zeros(1, 1))
    state = sampler.step(state, torch.zeros(1, 1), torch.ones(1, 1))
    assert state.draw is None and state.index == 1, "within a step none is wanted"
