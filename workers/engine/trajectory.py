"""What the engine makes of an order, and where it begins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.generator import Generator
from sitsearch.models.guidance import Guidance
from sitsearch.models.interpolants import interpolant_named
from sitsearch.models.noise import blend, gaussian, neighbor
from sitsearch.models.paths import PathChange
from sitsearch.models.samplers import Sampler, State, make_sampler
from sitsearch.models.samplers.registry import method_named
from sitsearch.workers.engine.guiding import GradientGuiding, Guiding, LookaheadGuiding, References
from sitsearch.workers.engine.latents import Latents, Node
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.fingerprint import Fingerprint
from sitsearch.workers.jobs.guides import Gradient
from sitsearch.workers.jobs.recipe import Blend, Integrate, Neighbor, Op, Renoise
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.search.sampling import Sampling


@dataclass(frozen=True)
class Sample:
    """A candidate made.

    Attributes:
        image: `[H, W, 3]` uint8; of the data prediction, if the recipe ends before t = 1.
        x: `[C, H, W]` float32 on the generator's device: the state, or data prediction, that was decoded.
        preview: `[H, W, 3]` uint8, where it was ordered: the data prediction of the first evaluation at
            `PREVIEW_NOISE_LEVEL` or below, or of the last one made before, or the image itself if none was.
        broken: the state is not finite: the image shows nothing that the model drew.
        nfe, forwards: evaluations and network rows that it took.
        gradients: of a verifier, that guided it.
        nfe_again, forwards_again, gradients_again: those spent besides, on what was no longer at hand.
    """

    image: Tensor
    x: Tensor
    preview: Tensor | None
    broken: bool
    nfe: int
    forwards: int
    gradients: int = 0
    nfe_again: int = 0
    forwards_again: int = 0
    gradients_again: int = 0


def made_of(samples: Sequence[Sample], by: Fingerprint | None = None) -> Made[Tensor]:
    """Samples as what came of a round's proposals; `by` is what made them, if it is to be known."""
    previews = [sample.preview for sample in samples if sample.preview is not None]
    return Made(
        images=torch.stack([sample.image for sample in samples]),
        nfe=[sample.nfe for sample in samples],
        forwards=[sample.forwards for sample in samples],
        nfe_again=sum(sample.nfe_again for sample in samples),
        forwards_again=sum(sample.forwards_again for sample in samples),
        previews=torch.stack(previews) if previews else None,
        gradients=[sample.gradients for sample in samples],
        gradients_again=sum(sample.gradients_again for sample in samples),
        broken=[sample.broken for sample in samples],
        by=() if by is None else (by,),
    )


class Field:
    """The guided field that a request's sampler asks: which network rows an evaluation takes, and what they mean."""

    def __init__(self, generator: Generator, choice: SamplerChoice) -> None:
        self.choice = choice
        method_named(choice.method)  # a ValueError, as every order that cannot be carried out is
        self._sampling = Sampling(method=METHODS[choice.method], choice=choice)
        self.adaptive = self._sampling.method.adaptive
        own, path = interpolant_named(generator.interpolant), choice.path or generator.interpolant
        self.interpolant = interpolant_named(path)
        self._change = (
            None if path == generator.interpolant else PathChange(own, generator.prediction, self.interpolant)
        )
        self.prediction = "velocity" if self._change else generator.prediction
        self.guidance = Guidance(choice.guidance, choice.guidance_interval, generator.guided_channels)

    def sampler(self, start: float, op: Integrate) -> Sampler:
        """The sampler that carries out `op` from time `start`."""
        choice, method = self.choice, self._sampling.method
        options: dict[str, Any] = {"times": self._sampling.grid(start, op), "rtol": choice.rtol, "atol": choice.atol}
        options |= {"inner": choice.inner, "rho": choice.rho}
        if method.stochastic:
            last = choice.last_step if op.to == 1 else None
            options |= {"diffusion": choice.diffusion, "norm": choice.norm, "last_step": last}
        return make_sampler(
            method.name, steps=op.steps, interpolant=self.interpolant, prediction=self.prediction, **options
        )

    def guiding(
        self, start: float, ops: Sequence[Integrate], orders: Sequence[Order], references: References | None
    ) -> Guiding | None:
        """What guides the integrations `ops` of `orders` from time `start`; they share all but their draws."""
        guide = ops[0].guide
        if guide is None:
            return None
        steps = self._sampling.guided_steps(start, ops[0])
        if isinstance(guide, Gradient):
            return GradientGuiding(guide, steps, orders, ops, self.interpolant)
        assert references is not None
        first = References(references.x[: guide.references], references.rewards[: guide.references])
        return LookaheadGuiding(guide, steps, first, self.interpolant)

    def step_of(self, state: State) -> int:
        """The step of its integration that a sampler's state is in."""
        return state.index // (self.choice.inner if self._sampling.method.inner else 1)

    def query(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the network is asked for the field at `(x, t)`."""
        return self._change.to_own(x, t) if self._change else (x, t)

    def answer(self, value: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The field at `(x, t)` from what the (guided) network said there."""
        return self._change.velocity(value, x, t) if self._change else value

    def data(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data prediction D(x, t)."""
        return self.interpolant.convert(prediction, x, t, self.prediction, "data")

    def of_data(self, data: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The prediction at `(x, t)` that says this of the data."""
        return self.interpolant.convert(data, x, t, "data", self.prediction)


@dataclass(frozen=True)
class Start:
    """Where an order begins: after its first `position` operations, at time `t`."""

    position: int
    t: float
    node: Node


def find_start(order: Order, keys: Sequence[bytes], latents: Latents, shape: tuple[int, ...]) -> Start:
    """The furthest known state of an order that is still at hand, or its start noise."""
    recipe, noise_ops = order.recipe, len(order.recipe.noise.ops)
    for position in range(max(order.known, noise_ops), 0, -1):
        node = latents.get(keys[position])
        if node is not None:
            if not (order.evaluated and position == order.known):
                node = Node(node.x)  # an evaluation that was not promised would make costs a matter of luck
            break
    else:
        position = 0
        node = latents.get(keys[0]) if order.evaluated and order.known == 0 else None
        node = node or Node(gaussian(recipe.seed, recipe.round, recipe.index, shape))
    if position < noise_ops:
        x = node.x.cpu()  # where noise is drawn, so that it is the same whatever the device
        for done, op in enumerate(recipe.ops[position:noise_ops], position + 1):
            if isinstance(op, Neighbor):
                x = neighbor(x, op.cosine, recipe.seed, op.round, op.index)
            elif isinstance(op, Blend):
                x = blend(x, op.strength, recipe.seed, op.round, op.index)
            if done == noise_ops:
                latents.put(keys[done], Node(x))
        position, node = noise_ops, Node(x)
    return Start(position, recipe.prefix(position).time, node)


def outline(order: Order) -> tuple[object, ...]:
    """What orders must have in common to move in lockstep, wherever they begin."""
    shape = _shape(order.recipe.ops)
    return (
        order.sampler,
        shape,
        order.known,
        order.evaluated,
        order.preview,
        order.revisited,
        id(order.references),  # equal tables that are not one are guided apart
    )


def program(order: Order, start: Start) -> tuple[object, ...]:
    """What orders of one outline must have in common to move in lockstep from where they begin."""
    return (start.position, start.t, start.node.prediction is not None)


def planned_rows(order: Order) -> int:
    """Network rows that an order is expected to take; the most, if its method is adaptive. 0 for an unknown method."""
    if order.sampler.method not in METHODS:
        return 0
    sampling = Sampling(method=METHODS[order.sampler.method], choice=order.sampler)
    return order.sampler.rows * sampling.cost(order.recipe, order.known, evaluated=order.evaluated)


def _shape(ops: Sequence[Op]) -> tuple[object, ...]:
    return tuple(
        (op.op, op.to, getattr(op, "steps", 0), len(getattr(op, "nudges", ())), getattr(op, "guide", None))
        if isinstance(op, Integrate | Renoise)
        else (op.op, getattr(op, "scale", None))
        for op in ops
    )
