"""One grid: a trajectory that is cut, and gone on with from where it was cut, is the trajectory that was never cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sitsearch.models.condition import Condition
from sitsearch.models.interpolants import PREDICTIONS
from sitsearch.models.noise import step_noise
from sitsearch.models.samplers import SAMPLERS
from sitsearch.workers.engine import cohort
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all
from sitsearch.workers.search.sampling import Sampling
from tests.workers.engine.test_trajectories import tiny_generator

STEPS = 5
ROOT = Recipe(seed=3, round=0, index=0)
FIXED = sorted(name for name, method in SAMPLERS.items() if not method.adaptive)
#: The steps after which a trajectory is cut: once anywhere, twice, and everywhere.
CUTS = [*((k,) for k in range(1, STEPS)), (1, 3), (2, 4), tuple(range(1, STEPS))]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"shift": 3.0},
    {"shift": 0.4, "last_step_size": 0.04},
    {"last_step_size": 0.04},
    {"last_step": "Tweedie"},
    {"last_step": "Euler", "shift": 3.0, "last_step_size": 0.3},
    {"last_step": None},
    {"path": "VP"},
    {"path": "GVP", "diffusion": "SBDM", "norm": 0.5},
]


@pytest.fixture
def one_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """An integration's round says at which step of the trajectory it begins: its draws are those of the whole."""

    def drawn(seed: int, round: int, index: int, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        return step_noise(seed, 0, 0, round + draw, shape)

    monkeypatch.setattr(cohort, "step_noise", drawn)


def parts(sampling: Sampling, cuts: tuple[int, ...]) -> Recipe:
    """The recipe of a trajectory that is cut after these steps."""
    ends = (*cuts, sampling.steps)
    return ROOT.then(
        *(
            Integrate(to=sampling.time(end), steps=end - begin, round=begin)
            for begin, end in zip((0, *cuts), ends, strict=True)
        )
    )


def assert_one_grid(model: tuple[str, str], choice: SamplerChoice, *, tolerance: float = 1e-5) -> None:
    generator = tiny_generator(*model)
    sampling = Sampling(method=METHODS[choice.method], choice=choice)
    recipes = [parts(sampling, cuts) for cuts in ((), *CUTS)]
    for recipe in recipes:
        begin, times = 0.0, [0.0]
        for op in recipe.ops:
            assert isinstance(op, Integrate)
            times += sampling.grid(begin, op)[1:]
            begin = op.to
        assert times == [sampling.time(step) for step in range(STEPS + 1)], "to the bit"
    engine = Engine(generator, batch=32, deterministic=False)
    whole, *cut = sample_all(engine, [Order(recipe, Condition(1), choice) for recipe in recipes])
    for sample, cuts in zip(cut, CUTS, strict=True):
        torch.testing.assert_close(sample.x, whole.x, atol=tolerance, rtol=tolerance, msg=f"cut at {cuts}")
        recipe = parts(sampling, cuts)
        assert sample.nfe <= sampling.cost(recipe)
    assert whole.nfe == sampling.whole or METHODS[choice.method].adaptive


@pytest.mark.parametrize("method", FIXED)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_trajectory_that_is_cut_is_the_one_that_is_not(
    one_noise: None, method: str, settings: dict[str, Any]
) -> None:
    choice = SamplerChoice.model_validate({"method": method, "steps": STEPS, "guidance": 1.0} | settings)
    assert_one_grid(("Linear", "velocity"), choice)


@pytest.mark.parametrize("method", ["heun", "euler_maruyama", "heun_sde"])
@pytest.mark.parametrize("interpolant", ["Linear", "GVP", "VP"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_so_it_is_for_every_kind_of_model(one_noise: None, method: str, interpolant: str, prediction: str) -> None:
    assert_one_grid((interpolant, prediction), SamplerChoice(method=method, steps=STEPS, guidance=1.0))


def test_an_adaptive_method_comes_to_the_same_within_its_tolerance(one_noise: None) -> None:
    choice = SamplerChoice(method="dopri5", steps=200, guidance=1.0, rtol=1e-7, atol=1e-7)
    sampling = Sampling(method=METHODS["dopri5"], choice=choice)
    recipes = [ROOT.then(sampling.to_end())]
    recipes += [ROOT.then(Integrate(to=t, steps=100), Integrate(to=1.0, steps=100)) for t in (0.2, 0.5, 0.9)]
    engine = Engine(tiny_generator(), batch=32, deterministic=False)
    whole, *cut = sample_all(engine, [Order(recipe, Condition(1), choice) for recipe in recipes])
    for sample in cut:
        torch.testing.assert_close(sample.x, whole.x, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("settings", [{}, {"shift": 3.0}, {"last_step_size": 0.04, "shift": 0.5}])
def test_place_is_the_inverse_of_time(settings: dict[str, Any]) -> None:
    choice = SamplerChoice.model_validate({"method": "euler_maruyama", "steps": 9} | settings)
    sampling = Sampling(method=METHODS["euler_maruyama"], choice=choice)
    times = [sampling.time(step / 4) for step in range(37)]
    assert times == sorted(times) and (times[0], times[-1]) == (0.0, 1.0)
    assert [sampling.place(t) for t in times] == pytest.approx([step / 4 for step in range(37)], abs=1e-8)
