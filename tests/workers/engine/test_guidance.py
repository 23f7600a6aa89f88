"""Trajectories that follow a verifier: by its gradient, or by samples whose scores are known."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import SiTGenerator
from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine import cohort
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.gradients import Here, Wanted
from sitsearch.workers.engine.guiding import GradientGuiding, LookaheadGuiding, References
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.submissions import Done
from sitsearch.workers.jobs.guides import Gradient, Lookahead
from sitsearch.workers.jobs.recipe import Integrate, Recipe, Reference
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all
from sitsearch.workers.search.sampling import Sampling
from tests.workers.engine.test_grid import FIXED, one_noise
from tests.workers.tiny import tiny_generator

__all__ = ["one_noise"]

STEPS = 6
ROOT = Recipe(seed=3, round=0, index=0)
LOOKAHEAD = Lookahead(references=3, weight=2.0, strength=1.0, temperature=0.1, interval=(0.0, 0.9))


def gradient(**options: object) -> Gradient:
    return Gradient.model_validate({"verifier": "red", "strength": 0.5, "interval": (0.1, 0.9), **options})


class Red(Verifier):
    """How near an image is to red."""

    differentiable = True

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        return self.differentiable_score(images, conditions).detach()

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        return -(images - images.new_tensor([1.0, 0.0, 0.0])[:, None, None]).square().mean(dim=(1, 2, 3))


def engine_of(generator: SiTGenerator, batch: int = 8) -> Engine:
    return Engine(generator, batch=batch, gradients=Here({"red": Red()}, generator.decoder, batch=8))


@pytest.fixture(scope="module")
def tiny() -> SiTGenerator:
    return tiny_generator()


def references(count: int) -> tuple[Reference, ...]:
    """Of which the last was guided by those before it."""
    plain = [
        Reference(recipe=Recipe(seed=8, round=0, index=i).then(Integrate(to=1.0, steps=2)), reward=float(i % 2))
        for i in range(count - 1)
    ]
    guide = LOOKAHEAD.model_copy(update={"references": count - 1})
    guided = Recipe(seed=8, round=1, index=0).then(Integrate(to=1.0, steps=3, guide=guide))
    return (*plain, Reference(recipe=guided, reward=1.5))


def order(recipe: Recipe, choice: SamplerChoice, **options: object) -> Order:
    return Order(recipe, Condition(1), choice, references=references(3), **options)  # type: ignore[arg-type]


def whole(guide: Gradient | Lookahead | None, index: int = 0) -> Recipe:
    return Recipe(seed=3, round=0, index=index).then(Integrate(to=1.0, steps=STEPS, index=index, guide=guide))


GUIDES = [gradient(), gradient(every=2), gradient(damped=True, clip=0.01, views=2), LOOKAHEAD]


@pytest.mark.usefixtures("one_noise")
@pytest.mark.parametrize("guide", GUIDES)
@pytest.mark.parametrize("method", FIXED)
def test_a_guided_trajectory_that_is_cut_is_the_one_that_is_not(
    tiny: SiTGenerator, method: str, guide: Gradient | Lookahead
) -> None:
    choice = SamplerChoice(method=method, steps=STEPS, guidance=2.0)
    sampling = Sampling(method=METHODS[method], choice=choice, guide=guide)
    uncut = ROOT.then(sampling.to_end())
    expected, *_ = sample_all(engine_of(tiny), [order(uncut, choice)])
    plain, *_ = sample_all(engine_of(tiny), [order(ROOT.then(Integrate(to=1.0, steps=STEPS)), choice)])
    assert not torch.allclose(expected.x, plain.x, atol=1e-2)
    assert (expected.nfe, expected.gradients) == (sampling.cost(uncut), sampling.gradients(uncut))
    for cut in (1, 3, 4):
        middle = sampling.time(cut)
        first = ROOT.then(sampling.integrate(middle, cut))
        recipe = first.then(sampling.integrate(1.0, STEPS - cut, round=cut))
        engine = engine_of(tiny)
        sample_all(engine, [order(first, choice)])
        again, *_ = sample_all(engine, [order(recipe, choice, known=1, evaluated=True)])
        torch.testing.assert_close(again.x, expected.x, atol=2e-5, rtol=0)
        assert (again.gradients, again.gradients_again) == (sampling.gradients(recipe, 1), 0)
        lost, *_ = sample_all(engine_of(tiny), [order(recipe, choice, known=1, evaluated=True)])
        assert torch.equal(lost.x, again.x) and lost.gradients == again.gradients
        assert lost.gradients + lost.gradients_again == expected.gradients


@pytest.mark.parametrize(("interpolant", "prediction"), [("Linear", "velocity"), ("GVP", "noise"), ("VP", "score")])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_guidance_raises_the_score_on_every_path_and_prediction(
    interpolant: str, prediction: str, noise: float
) -> None:
    generator = tiny_generator(interpolant, prediction)
    choice = SamplerChoice(method="euler_maruyama" if noise else "heun", steps=STEPS, guidance=1.0, norm=0.1)
    scores = []
    for guide in (None, gradient(strength=0.0 if noise else 0.5, noise=noise, interval=(0.1, 0.95))):
        made = sample_all(engine_of(generator), [Order(whole(guide, i), Condition(i), choice) for i in range(4)])
        assert all(bool(sample.x.isfinite().all()) for sample in made)
        images = torch.stack([generator.decoder.render(sample.x) for sample in made])
        scores.append(float(Red().score(images, [Condition(0)] * 4).mean()))
    assert scores[1] > scores[0]


def test_rows_get_the_same_bits_whatever_is_guided_beside_them(tiny: SiTGenerator) -> None:
    choices = [
        SamplerChoice(method=method, steps=STEPS, guidance=2.0) for method in ("heun", "glass", "euler_maruyama")
    ]
    guides = (None, gradient(), gradient(views=2), LOOKAHEAD)
    orders = [
        Order(whole(guide, i), Condition(i % 5), choice, references=references(3))
        for i, (choice, guide) in enumerate((choice, guide) for choice in choices for guide in guides)
    ]
    together = sample_all(engine_of(tiny), orders)
    for one, sample in zip(orders, together, strict=True):
        (alone,) = sample_all(engine_of(tiny), [one])
        assert torch.equal(alone.x, sample.x) and torch.equal(alone.image, sample.image)


def test_a_move_is_as_long_as_its_strength_says_and_a_clipped_one_shorter() -> None:
    path, x, t = interpolant_named("Linear"), torch.zeros(2, 3, 8, 8), torch.full((2,), 0.25)
    toward = (
        torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        * torch.tensor([1e-3, 1e3])[:, None, None, None]
    )
    recipe = whole(gradient())
    for clip, expected in ((None, (0.375, 0.375)), (1.0, (0.375e-3, 0.375))):
        guide = gradient(clip=clip)
        guiding = GradientGuiding(
            guide,
            (1,),
            [Order(recipe, Condition(0), SamplerChoice())] * 2,
            [recipe.ops[0]] * 2,
            path,  # type: ignore[list-item]
        )
        assert guiding.begin(0, x) is None and not guiding.moves
        assert guiding.begin(1, x) is not None
        guiding.take(toward, x, t)
        moved = guiding.moved(x, x, t)
        lengths = moved.square().flatten(1).mean(1).sqrt()
        torch.testing.assert_close(lengths, torch.tensor(expected), rtol=0.06, atol=0)
        assert torch.cosine_similarity(moved.flatten(1), toward.flatten(1)).min() > 0.9999


def test_lookahead_is_the_gradient_of_the_expected_rewards_logarithm() -> None:
    samples, rewards = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(5.0) / 2
    x, data = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(1)), torch.zeros(1, 3, 4, 4)
    t, path = torch.tensor([0.4]), interpolant_named("Linear")
    guide = LOOKAHEAD.model_copy(update={"temperature": 1 / 48})  # so that T is 1
    guiding = LookaheadGuiding(guide, (0,), References(samples, rewards), path)
    guiding.begin(0, data)
    moved = guiding.moved(data, x, t)
    y = x.clone().requires_grad_(True)
    near = -(y - 0.4 * samples).flatten(1).square().sum(1) / (2 * 0.6**2)
    value = (near + 2 * rewards).logsumexp(0) - near.logsumexp(0)
    (slope,) = torch.autograd.grad(value, y)
    torch.testing.assert_close(moved, slope * 0.6**2 / 0.4, atol=1e-4, rtol=1e-4)


def test_lost_references_are_made_again_and_counted_apart(tiny: SiTGenerator) -> None:
    choice, engine = SamplerChoice(method="euler", steps=STEPS, guidance=1.0), engine_of(tiny)
    made = [
        sample_all(engine, [Order(r.recipe, Condition(1), choice, revisited=True, references=references(3)[:2])])
        for r in references(3)
    ]
    assert [sample.nfe_again for (sample,) in made] == [0, 0, 0]
    (there,) = sample_all(engine, [order(whole(LOOKAHEAD), choice)])
    (lost,) = sample_all(engine_of(tiny), [order(whole(LOOKAHEAD), choice)])
    assert torch.equal(there.x, lost.x)
    lent = engine_of(tiny)
    lent.lend("local", order(whole(LOOKAHEAD), choice), [sample.x for (sample,) in made])
    (borrowed,) = sample_all(lent, [order(whole(LOOKAHEAD), choice)])
    assert torch.equal(borrowed.x, there.x) and borrowed.nfe_again == 0
    assert (there.nfe, there.nfe_again) == (STEPS, 0) and (lost.nfe, lost.nfe_again) == (STEPS, 2 + 2 + 3)


class Later:
    """Gradients that come when they are told to."""

    def __init__(self, generator: SiTGenerator) -> None:
        self._here = Here({"red": Red()}, generator.decoder, batch=8)
        self.asked: list[tuple[Wanted, Future[Tensor]]] = []

    def __call__(self, wanted: Wanted) -> Future[Tensor]:
        self.asked.append((wanted, Future()))
        return self.asked[-1][1]

    def answer(self, error: Exception | None = None) -> None:
        for wanted, future in self.asked:
            if error is None:
                future.set_result(self._here(wanted).result())
            else:
                future.set_exception(error)
        self.asked = []


def until_waiting(engine: Engine) -> list[Done]:
    done = []
    while engine.busy and not engine.waiting:
        done += engine.step()
    return done


def test_others_go_on_while_a_row_waits_and_what_it_gets_late_is_the_same(tiny: SiTGenerator) -> None:
    choice, source = SamplerChoice(method="heun", steps=STEPS, guidance=2.0), Later(tiny)
    engine = Engine(tiny, batch=8, gradients=source)
    guided = engine.submit("a", [Order(whole(gradient()), Condition(1), choice)])
    plain = engine.submit("b", [Order(whole(None), Condition(1), choice)])
    assert [done.ticket for done in until_waiting(engine)] == [plain]
    while engine.busy:
        source.answer()
        for done in until_waiting(engine):
            assert done.ticket == guided
            (late,) = done.samples
    (expected,) = sample_all(engine_of(tiny), [Order(whole(gradient()), Condition(1), choice)])
    assert torch.equal(late.x, expected.x)


def test_what_gradients_fail_fails_alone_and_what_is_cancelled_is_forgotten(tiny: SiTGenerator) -> None:
    choice, source = SamplerChoice(method="heun", steps=STEPS, guidance=2.0), Later(tiny)
    engine = Engine(tiny, batch=8, gradients=source)
    tickets = [engine.submit("a", [Order(whole(gradient(), i), Condition(1), choice)]) for i in range(2)]
    until_waiting(engine)
    engine.cancel(tickets[0])
    source.answer(ValueError("no gradient"))
    done = until_waiting(engine)
    assert [one.ticket for one in done] == [tickets[1]] and str(done[0].error) == "no gradient"
    assert not engine.busy and engine.live == 0


def test_what_cannot_be_guided_is_refused(tiny: SiTGenerator) -> None:
    choice = SamplerChoice(method="heun", steps=STEPS, guidance=2.0)
    with pytest.raises(ValueError, match="nobody here makes any"):
        Engine(tiny, batch=8).submit("a", [Order(whole(gradient()), Condition(1), choice)])
    with pytest.raises(ValueError, match="counts 3 references and came with 0"):
        engine_of(tiny).submit("a", [Order(whole(LOOKAHEAD), Condition(1), choice)])


assert cohort  # its `step_noise` is what `one_noise` patches
