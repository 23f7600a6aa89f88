"""Recipes carried out by the engine: costs, what is left behind, and what is made again when it is lost."""

from __future__ import annotations

import pytest
import torch

from sitsearch.models.condition import Condition
from sitsearch.models.generator import SiTGenerator
from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.samplers import SAMPLERS
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.jobs.recipe import Blend, Integrate, Neighbor, Nudge, Perturb, Recipe, Renoise
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all
from sitsearch.workers.search.sampling import Sampling
from tests.models.problems import GaussianData
from tests.workers.tiny import tiny_generator

ROOT = Recipe(seed=3, round=0, index=0)


@pytest.fixture(scope="module")
def tiny() -> SiTGenerator:
    return tiny_generator()


def make(engine: Engine, recipe: Recipe, choice: SamplerChoice, known: int = 0, *, evaluated: bool = False) -> Sample:
    return sample_all(engine, [Order(recipe, Condition(1), choice, known, evaluated)])[0]


def cost(recipe: Recipe, choice: SamplerChoice, known: int = 0, *, evaluated: bool = False) -> int:
    return Sampling(method=METHODS[choice.method], choice=choice).cost(recipe, known, evaluated=evaluated)


RECIPES = {
    "whole": ROOT.then(Integrate(to=1.0, steps=6)),
    "neighbour of a neighbour": ROOT.then(
        Neighbor(round=1, index=0, cosine=0.9), Neighbor(round=2, index=1, cosine=0.8), Integrate(to=1.0, steps=4)
    ),
    "blend": ROOT.then(Blend(round=1, index=0, strength=0.2), Integrate(to=1.0, steps=4)),
    "preview of the noise": ROOT,
    "preview midway": ROOT.then(Integrate(to=0.5, steps=3)),
    "back and forth": ROOT.then(
        Integrate(to=0.8, steps=4),
        Renoise(to=0.1, round=1, index=0),
        Integrate(to=0.9, steps=4, round=1),
        Renoise(to=0.2, round=2, index=5),
        Integrate(to=1.0, steps=4, round=2, index=5),
    ),
    "perturbed": ROOT.then(
        Integrate(to=0.4, steps=2), Perturb(round=1, index=0, scale=0.1), Integrate(to=1.0, steps=3, round=1)
    ),
    "nudged": ROOT.then(
        Integrate(to=0.3, steps=1, nudges=(Nudge(round=1, index=0, radius=0.15),)), Integrate(to=1.0, steps=3, round=1)
    ),
    "one last step": ROOT.then(Integrate(to=0.99, steps=5), Integrate(to=1.0, steps=1)),
    "last steps from within the last step": ROOT.then(Integrate(to=0.98, steps=5), Integrate(to=1.0, steps=2)),
}


@pytest.mark.parametrize("method", sorted(SAMPLERS))
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_costs_are_what_the_planner_says_and_nothing_is_lost_by_going_on_from_a_state(
    tiny: SiTGenerator, name: str, method: str
) -> None:
    recipe, choice = RECIPES[name], SamplerChoice(method=method, guidance=2.0)
    whole = make(Engine(tiny, batch=8), recipe, choice)
    exact = not SAMPLERS[method].adaptive
    assert whole.nfe == cost(recipe, choice) if exact else 0 < whole.nfe <= cost(recipe, choice)
    assert whole.forwards == whole.nfe * choice.rows and whole.nfe_again == 0
    assert bool(whole.x.isfinite().all())
    for known in range(len(recipe.noise.ops) + 1, len(recipe.ops)):
        for evaluated in (False, True):
            engine = Engine(tiny, batch=8)
            if evaluated:
                make(engine, recipe.prefix(known), choice)
            else:
                make(engine, recipe, choice)
            went_on = make(engine, recipe, choice, known, evaluated=evaluated)
            assert torch.equal(went_on.x, whole.x), (known, evaluated)
            assert went_on.nfe_again == 0
            planned = cost(recipe, choice, known, evaluated=evaluated)
            assert went_on.nfe == planned if exact else went_on.nfe <= planned
            lost = make(Engine(tiny, batch=8), recipe, choice, known, evaluated=evaluated)
            assert torch.equal(lost.x, whole.x)
            assert lost.nfe == went_on.nfe
            assert lost.nfe + lost.nfe_again == whole.nfe


@pytest.mark.parametrize("method", ["euler", "euler_maruyama", "dopri5"])
def test_guidance_within_an_interval_takes_two_rows_only_there(tiny: SiTGenerator, method: str) -> None:
    recipe = ROOT.then(Integrate(to=1.0, steps=10))
    within = SamplerChoice(method=method, steps=10, guidance=3.0, guidance_interval=(0.3, 0.6))
    sample = make(Engine(tiny, batch=8), recipe, within)
    assert sample.nfe < sample.forwards < 2 * sample.nfe
    if method == "euler":  # t = 0.3, 0.4, 0.5 and 0.6 of 0, 0.1, ..., 0.9
        assert (sample.nfe, sample.forwards) == (10, 14)
    always, never = (
        make(Engine(tiny, batch=8), recipe, SamplerChoice(method=method, steps=10, guidance=scale)) for scale in (3, 1)
    )
    assert not torch.equal(sample.x, always.x) and not torch.equal(sample.x, never.x)


def test_rows_of_an_adaptive_method_do_not_depend_on_their_neighbours(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="dopri5", steps=50, guidance=1.5, guidance_interval=(0.2, 0.7))
    recipes = [Recipe(seed=s, round=0, index=0).then(Integrate(to=1.0, steps=50)) for s in range(5)]
    together = sample_all(Engine(tiny, batch=32), [Order(r, Condition(1), choice) for r in recipes])
    for recipe, sample in zip(recipes, together, strict=True):
        alone = make(Engine(tiny, batch=32), recipe, choice)
        assert torch.equal(alone.x, sample.x) and (alone.nfe, alone.forwards) == (sample.nfe, sample.forwards)


@pytest.mark.parametrize("own", ["Linear", "GVP", "VP"])
@pytest.mark.parametrize("path", ["Linear", "GVP", "VP"])
def test_an_ode_ends_at_the_same_image_on_whatever_path_it_is_solved(own: str, path: str) -> None:
    generator = tiny_generator(own, "noise")
    exact = GaussianData(interpolant_named(own)).prediction("noise")
    generator.evaluate = lambda x, t, rows: exact(x, t)  # type: ignore[method-assign]
    recipe = ROOT.then(Integrate(to=1.0, steps=300))
    at_home = make(Engine(generator), recipe, SamplerChoice(method="heun", guidance=1.0))
    abroad = make(Engine(generator), recipe, SamplerChoice(method="heun", guidance=1.0, path=path))
    torch.testing.assert_close(abroad.x, at_home.x, atol=0.01, rtol=0)


def test_a_trajectory_may_be_cut_at_any_time_of_its_shifted_grid(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="euler", steps=6, shift=3.0, guidance=1.0)
    sampling = Sampling(method=METHODS["euler"], choice=choice)
    whole = make(Engine(tiny), ROOT.then(sampling.to_end()), choice)
    middle = sampling.time(2)
    cut = make(Engine(tiny), ROOT.then(Integrate(to=middle, steps=2), sampling.to_end(middle)), choice)
    torch.testing.assert_close(cut.x, whole.x, atol=1e-5, rtol=1e-5)


def test_the_cache_forgets_the_oldest_first_and_stays_within_its_bounds(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, latent_bytes=4 * (8 * 8 * 3 * 4 + 500))
    choice = SamplerChoice(method="euler", guidance=1.0)
    begun = [Recipe(seed=s, round=0, index=0).then(Integrate(to=0.5, steps=2)) for s in range(8)]
    for recipe in begun:
        make(engine, recipe, choice)
    assert engine.latents.bytes <= engine.latents.capacity
    end = Integrate(to=1.0, steps=2)
    assert make(engine, begun[0].then(end), choice, 1).nfe_again == 2
    assert make(engine, begun[-1].then(end), choice, 1, evaluated=True).nfe_again == 0


def previewed(engine: Engine, recipes: list[Recipe], choice: SamplerChoice, known: int = 0) -> list[torch.Tensor]:
    orders = [Order(recipe, Condition(1), choice, known, known > 0, preview=True) for recipe in recipes]
    previews = [sample.preview for sample in sample_all(engine, orders)]
    assert all(preview is not None for preview in previews)
    return [preview for preview in previews if preview is not None]


@pytest.mark.parametrize("method", ["euler", "heun", "euler_maruyama", "dopri5"])
def test_a_preview_is_the_data_prediction_where_the_noise_level_falls_to_two_fifths(
    tiny: SiTGenerator, method: str
) -> None:
    choice, seen = SamplerChoice(method=method, steps=10, guidance=1.0), []
    evaluate, generator = tiny.evaluate, tiny_generator()

    def spy(x: torch.Tensor, t: torch.Tensor, rows: tuple[torch.Tensor, ...]) -> torch.Tensor:
        value = evaluate(x, t, rows)
        seen.append((float(t[0]), generator.decoder.decode(x[:1] + (1 - t[0]) * value[:1])[0]))
        return value

    generator.evaluate = spy  # type: ignore[method-assign]
    (preview,) = previewed(
        Engine(generator, batch=8, deterministic=False), [ROOT.then(Integrate(to=1.0, steps=10))], choice
    )
    first = next(image for t, image in seen if t >= 0.6 - 1e-6)
    assert (preview.int() - first.int()).abs().max() <= 1


def test_a_preview_costs_nothing_and_does_not_depend_on_what_is_at_hand(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="euler", guidance=2.0)
    recipe = ROOT.then(Integrate(to=0.5, steps=3), Integrate(to=1.0, steps=3))
    engine = Engine(tiny, batch=8)
    make(engine, recipe.prefix(1), choice)
    (at_hand,), (lost,) = (previewed(e, [recipe], choice, known=1) for e in (engine, Engine(tiny, batch=8)))
    assert torch.equal(at_hand, lost)
    plain, shown = Engine(tiny, batch=8), Engine(tiny, batch=8)
    make(plain, recipe, choice)
    previewed(shown, [recipe], choice)
    assert (plain.nfe, plain.forwards) == (shown.nfe, shown.forwards)


def test_noise_that_is_put_back_makes_an_earlier_preview_void(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="euler", guidance=1.0)
    begun = ROOT.then(Integrate(to=0.9, steps=9))
    again = begun.then(Renoise(to=0.2, round=1, index=0), Integrate(to=1.0, steps=8, round=1))
    engine = Engine(tiny, batch=8)
    assert not torch.equal(previewed(engine, [begun], choice)[0], previewed(engine, [again], choice)[0])


@pytest.mark.parametrize("revisited", [True, False])
def test_a_finished_state_is_at_hand_for_those_who_said_that_they_would_come_back(
    tiny: SiTGenerator, revisited: bool
) -> None:
    choice = SamplerChoice(method="euler", guidance=1.0)
    whole = ROOT.then(Integrate(to=1.0, steps=4))
    again = whole.then(Renoise(to=0.5, round=1, index=0), Integrate(to=1.0, steps=2, round=1))
    engine = Engine(tiny, batch=8)
    sample_all(engine, [Order(whole, Condition(1), choice, revisited=revisited)])
    (sample,) = sample_all(engine, [Order(again, Condition(1), choice, known=1)])
    assert (sample.nfe, sample.nfe_again) == (2, 0 if revisited else 4)
    (anew,) = sample_all(Engine(tiny, batch=8), [Order(again, Condition(1), choice)])
    assert torch.equal(sample.x, anew.x)


def test_noise_that_is_put_back_is_each_recipes_own(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="euler", guidance=1.0)
    recipes = [
        Recipe(seed=seed, round=0, index=0).then(
            Integrate(to=1.0, steps=2), Renoise(to=0.5, round=1, index=0), Integrate(to=1.0, steps=1, round=1)
        )
        for seed in (1, 2, 3)
    ]
    together = sample_all(Engine(tiny, batch=8), [Order(recipe, Condition(1), choice) for recipe in recipes])
    for recipe, sample in zip(recipes, together, strict=True):
        assert torch.equal(make(Engine(tiny, batch=8), recipe, choice).x, sample.x)
