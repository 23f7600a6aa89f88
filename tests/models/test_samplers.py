"""Samplers converge as theory says, count what they evaluate, and do not mix rows."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor

from sitsearch.models.diffusion import DIFFUSIONS
from sitsearch.models.interpolants import INTERPOLANTS, interpolant_named
from sitsearch.models.samplers import SAMPLERS, concat, evaluations_per_step, make_sampler, time_grid
from sitsearch.models.samplers.sde import LAST_STEPS
from tests.golden.check import analytic_field
from tests.models.problems import GaussianData, run, states

PREDICTIONS = ("velocity", "score", "noise")
ODE = [name for name, method in SAMPLERS.items() if not method.stochastic]
FIXED = [name for name in ODE if not SAMPLERS[name].adaptive]
SDE = [name for name, method in SAMPLERS.items() if method.ends]
EVERY = pytest.mark.parametrize("method", SAMPLERS)


def start(rows: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(rows, 2, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# --- the contract ------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("steps", [2, 7])
def test_nfe_is_what_is_evaluated(method: str, steps: int) -> None:
    sampler = make_sampler(method, steps=steps)
    evaluations = sum(int(state.active[0]) for state in states(sampler, start(1), analytic_field))
    assert evaluations <= sampler.nfe if SAMPLERS[method].adaptive else evaluations == sampler.nfe
    if method in FIXED:
        assert sampler.nfe == steps * evaluations_per_step(method)


@EVERY
def test_states_say_where_and_when_and_are_never_changed(method: str) -> None:
    x = start()
    before = x.clone()
    history = list(states(make_sampler(method, steps=3), x, analytic_field))
    assert torch.equal(x, before) and torch.equal(history[0].x, before)
    for state in history:
        assert state.query_x.shape == state.x.shape == x.shape
        assert state.query_t.shape == (3,) and state.query_t.dtype == x.dtype
        assert bool((state.query_t >= 0).all()) and bool((state.query_t <= 1).all())
        assert state.done == (not state.active.any())
    with pytest.raises(dataclasses.FrozenInstanceError):
        history[0].index = 5  # type: ignore[misc]


@EVERY
def test_a_done_state_cannot_be_stepped(method: str) -> None:
    sampler = make_sampler(method, steps=2)
    *_, last = states(sampler, start(), analytic_field)
    with pytest.raises(ValueError, match="done"):
        sampler.step(last, start())


@EVERY
def test_rows_do_not_depend_on_the_batch(method: str) -> None:
    """Each row alone ends bit for bit where it ends among others (noise given by row)."""
    sampler, x = make_sampler(method, steps=6), start(4) * torch.tensor([0.1, 1.0, 5.0, 20.0]).reshape(-1, 1, 1, 1)
    noise = torch.randn(8, *x.shape, generator=torch.Generator().manual_seed(1))

    def ends(rows: slice) -> Tensor:
        state = sampler.init(x[rows], noise[0, rows] if sampler.noise_at_start else None)
        while not state.done:
            drawn = None if state.draw is None else noise[state.draw, rows]
            state = sampler.step(state, analytic_field(state.query_x, state.query_t), drawn)
        final: Tensor = state.x
        return final

    together = ends(slice(None))
    for row in range(4):
        assert torch.equal(ends(slice(row, row + 1))[0], together[row])


@EVERY
@pytest.mark.parametrize("after", [1, 2, 3])
def test_rows_can_be_taken_out_copied_and_joined_midway(method: str, after: int) -> None:
    sampler = make_sampler(method, steps=4)
    history = list(states(sampler, start(), analytic_field))
    state = history[after]
    rejoined = concat([state.select(torch.tensor([2])), state.select(torch.tensor([True, True, False]))])
    noise = start(seed=9)
    order = torch.tensor([2, 0, 1])
    expected = sampler.step(state, analytic_field(state.query_x, state.query_t), noise)
    actual = sampler.step(rejoined, analytic_field(rejoined.query_x, rejoined.query_t), noise[order])
    assert torch.equal(actual.x, expected.x[order]) and torch.equal(actual.query_x, expected.query_x[order])


def test_states_of_different_steps_cannot_be_joined() -> None:
    history = list(states(make_sampler("heun", steps=4), start(), analytic_field))
    with pytest.raises(ValueError, match="cannot join"):
        concat([history[0], history[1]])
    with pytest.raises(ValueError, match="at least one"):
        concat([])


@pytest.mark.parametrize("method", SDE)
def test_a_missing_noise_is_refused_and_draws_are_numbered_in_order(method: str) -> None:
    sampler = make_sampler(method, steps=5)
    draws = [state.draw for state in states(sampler, start(), analytic_field) if state.draw is not None]
    assert ([0] if sampler.noise_at_start else []) + draws == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="needs noise"):
        state = sampler.init(start())
        sampler.step(state, start())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hoin"}, "no sampler named"),
        ({"steps": 0}, "steps"),
        ({"interpolant": "Quadratic"}, "no interpolant"),
        ({"prediction": "flow"}, "prediction"),
        ({"shift": 0.0}, "shift"),
        ({"t0": 0.5, "t1": 0.5}, "t0 < t1"),
        ({"method": "heun_sde", "diffusion": "cubic"}, "diffusion form"),
        ({"method": "heun_sde", "last_step": "First"}, "last_step"),
        ({"method": "heun_sde", "steps": 1}, "at least 2 steps"),
        ({"last_step_size": 1.0}, "last_step_size"),
        ({"atol": 0.0}, "atol"),
        ({"norm": -1.0}, "norm"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler = make_sampler(**({"method": "heun", "steps": 4} | options))  # type: ignore[arg-type]
        sampler.init(start())


# --- grids -------------------------------------------------------------------------------------------------------


def test_a_shift_is_that_of_sd3_and_keeps_the_ends() -> None:
    uniform, shifted = (time_grid(0.0, 1.0, 10, shift, torch.float64) for shift in (1.0, 3.0))
    level = 1 - uniform
    torch.testing.assert_close(1 - shifted, 3 * level / (1 + 2 * level))
    assert shifted[0] == 0 and shifted[-1] == 1 and bool((shifted.diff() > 0).all())


@EVERY
def test_every_method_follows_a_shifted_grid(method: str) -> None:
    times = [float(s.query_t[0]) for s in states(make_sampler(method, steps=8, shift=3.0), start(), analytic_field)]
    if method in FIXED:
        assert times[evaluations_per_step(method)] < 1 / 8 / 2
    assert times == sorted(times)


def test_sampling_may_start_from_a_given_image_at_a_given_time() -> None:
    """From the exact x at t0 the ODE's end is the same as from the noise it came from."""
    data = GaussianData(interpolant_named("Linear"))
    field, z = data.prediction("velocity"), start(dtype=torch.float64)
    whole = run(make_sampler("rk4", steps=60), z, field)
    midway = run(make_sampler("rk4", steps=30, t1=0.5), z, field)
    torch.testing.assert_close(run(make_sampler("rk4", steps=30, t0=0.5), midway, field), whole, rtol=0, atol=1e-6)


# --- accuracy ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2), ("heun3", 3), ("rk4", 4)])
def test_the_order_of_convergence_is_the_theoretical_one(method: str, order: int) -> None:
    """On dx/dt = (t - 2) x, where halving the step divides the error by 2^order."""
    x = torch.ones(1, 1, dtype=torch.float64)
    exact = math.exp(-1.5)

    def error(steps: int) -> float:
        final = run(make_sampler(method, steps=steps), x, lambda x, t: (t - 2)[:, None] * x)
        return abs(final.item() - exact)

    assert math.log2(error(64) / error(128)) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("rtol", [1e-3, 1e-5, 1e-7])
def test_dopri5_meets_its_tolerance(rtol: float) -> None:
    x = torch.linspace(0.1, 10, 5, dtype=torch.float64)[:, None]
    sampler = make_sampler("dopri5", steps=1000, rtol=rtol, atol=rtol * 1e-3)
    final = run(sampler, x, lambda x, t: torch.cos(3 * t)[:, None] * x)
    torch.testing.assert_close(final, x * math.exp(math.sin(3) / 3), rtol=5 * rtol, atol=0)


def test_dopri5_takes_more_steps_only_where_a_row_needs_them() -> None:
    """One calm row and one that oscillates: each has its own step sizes."""
    rates = torch.tensor([[0.1], [60.0]])
    sampler = make_sampler("dopri5", steps=1000)
    history = list(states(sampler, torch.ones(2, 1), lambda x, t: torch.cos(rates * t[:, None]) * rates))
    calm, busy = torch.stack([state.active for state in history]).sum(0).tolist()
    assert calm * 3 < busy
    torch.testing.assert_close(history[-1].x, 1 + torch.sin(rates), rtol=0, atol=2e-2)


def test_dopri5_ends_within_its_attempts_even_when_they_are_too_few() -> None:
    sampler = make_sampler("dopri5", steps=3, rtol=1e-10, atol=1e-12)
    history = list(states(sampler, start(), analytic_field))
    assert len(history) - 1 <= sampler.nfe == 20
    exact = run(make_sampler("rk4", steps=100), start(), analytic_field)
    torch.testing.assert_close(history[-1].x, exact, rtol=0, atol=1e-3)


@pytest.mark.parametrize("broken", [math.nan, math.inf, 0.0])
def test_dopri5_ends_whatever_the_field_answers(broken: float) -> None:
    sampler = make_sampler("dopri5", steps=10)
    history = list(states(sampler, start(), lambda x, t: torch.full_like(x, broken)))
    assert len(history) - 1 <= sampler.nfe
    assert torch.isfinite(history[-1].x).all() == (broken == 0)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("prediction", [*PREDICTIONS, "data"])
@pytest.mark.parametrize("method", ODE)
def test_every_ode_setting_carries_noise_to_gaussian_data(path: str, prediction: str, method: str) -> None:
    data = GaussianData(interpolant_named(path))
    z = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    final = run(make_sampler(method, steps=60, interpolant=path, prediction=prediction), z, data.prediction(prediction))
    assert final.mean().item() == pytest.approx(data.mean, abs=0.05)
    assert final.std().item() == pytest.approx(data.std, rel=0.1)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize("method", SDE)
@pytest.mark.parametrize("form", ["SBDM", "sigma", "linear", "decreasing", "increasing-decreasing"])
def test_every_diffusion_keeps_the_marginals(path: str, method: str, form: str) -> None:
    """With the exact field, the same Gaussian data come out whatever w is (to the order of the step)."""
    data = GaussianData(interpolant_named(path))
    z = torch.randn(4096, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    t0 = 0.02 if form == "SBDM" else None
    sampler = make_sampler(method, steps=400, interpolant=path, diffusion=form, t0=t0, last_step_size=0.005)
    final = run(sampler, z, data.prediction("velocity"))
    assert final.mean().item() == pytest.approx(data.mean, abs=0.05)
    assert final.std().item() == pytest.approx(data.std, rel=0.12)


@pytest.mark.parametrize("path", INTERPOLANTS)
@pytest.mark.parametrize(("t", "to"), [(0.89, 0.11), (0.6, 0.4), (0.95, 0.0)])
def test_integrating_then_renoising_lands_on_the_earlier_marginal(path: str, t: float, to: float) -> None:
    data = GaussianData(interpolant_named(path))
    generator = torch.Generator().manual_seed(0)
    z, noise = (torch.randn(20_000, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    x = run(make_sampler("rk4", steps=40, interpolant=path, t1=t), z, data.prediction("velocity"))
    at, target = torch.tensor(t, dtype=torch.float64), torch.tensor(to, dtype=torch.float64)
    again = data.path.renoise(x, at, target, noise)
    mean, variance = data.moments(target)
    assert again.mean().item() == pytest.approx(mean.item(), abs=4 * math.sqrt(variance.item() / len(z)))
    assert again.var().item() == pytest.approx(variance.item(), rel=4 * math.sqrt(2 / len(z)))


# --- every setting is finite -------------------------------------------------------------------------------------


def test_all_432_sde_settings_are_finite() -> None:
    settings = list(itertools.product(INTERPOLANTS, PREDICTIONS, SDE, DIFFUSIONS, LAST_STEPS))
    assert len(settings) == 432
    bad = []
    for path, prediction, method, form, last in settings:
        sampler = make_sampler(method, steps=5, interpolant=path, prediction=prediction, diffusion=form, last_step=last)
        if not torch.isfinite(run(sampler, start(), analytic_field)).all():
            bad.append((path, prediction, method, form, last))
    assert bad == []


@pytest.mark.parametrize("method", ODE)
@pytest.mark.parametrize("prediction", [*PREDICTIONS, "data"])
@pytest.mark.parametrize("path", INTERPOLANTS)
def test_all_ode_settings_are_finite(path: str, prediction: str, method: str) -> None:
    sampler = make_sampler(method, steps=12, interpolant=path, prediction=prediction)
    assert torch.isfinite(run(sampler, start(), analytic_field)).all()
