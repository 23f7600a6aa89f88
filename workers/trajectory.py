"""Trajectories in lockstep: how recipes are carried out, one evaluation of the field at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.condition import Condition
from models.generator import Generator, Rows
from models.guidance import Guidance
from models.interpolants import interpolant_named
from models.noise import blend, gaussian, neighbor, nudge, perturb_noise, renoise_noise, step_noise
from models.paths import PathChange
from models.samplers import Sampler, State, make_sampler
from models.samplers.registry import method_named
from workers.jobs.recipe import Blend, Integrate, Neighbor, Perturb, Recipe, Renoise
from workers.jobs.schemas import SamplerChoice
from workers.latents import Latents, Node


@dataclass(frozen=True)
class Order:
    """A candidate to make: its recipe, of what, and how.

    Attributes:
        known, evaluated: what an earlier order of the job left behind (see `workers.search.base.Proposal`); it is
            computed again, and counted as recomputed, where it is no longer at hand.
    """

    recipe: Recipe
    condition: Condition
    sampler: SamplerChoice
    known: int = 0
    evaluated: bool = False


@dataclass(frozen=True)
class Sample:
    """A candidate made.

    Attributes:
        image: `[H, W, 3]` uint8; of the data prediction, if the recipe ends before t = 1.
        x: `[C, H, W]` float32, the state (or data prediction) that the image was decoded from.
        nfe, forwards: evaluations and network rows that it took.
        nfe_again, forwards_again: those spent besides, on what was no longer at hand.
    """

    image: Tensor
    x: Tensor
    nfe: int
    forwards: int
    nfe_again: int = 0
    forwards_again: int = 0


class Field:
    """The guided field that a request's sampler asks: which network rows an evaluation takes, and what they mean."""

    def __init__(self, generator: Generator, choice: SamplerChoice) -> None:
        self.choice = choice
        self._stochastic = method_named(choice.method).stochastic
        own, path = interpolant_named(generator.interpolant), choice.path or generator.interpolant
        self.interpolant = interpolant_named(path)
        self._change = (
            None if path == generator.interpolant else PathChange(own, generator.prediction, self.interpolant)
        )
        self.prediction = "velocity" if self._change else generator.prediction
        self.guidance = Guidance(choice.guidance, choice.guidance_interval, generator.guided_channels)

    def sampler(self, start: float, op: Integrate) -> Sampler:
        """The sampler that carries out `op` from time `start`."""
        choice, method = self.choice, self.choice.method
        options: dict[str, Any] = {"shift": choice.shift, "rtol": choice.rtol, "atol": choice.atol}
        options |= {"t0": start or None, "t1": None if op.to == 1 else op.to}
        if self._stochastic:
            if op.to == 1 and op.steps == 1:
                method = "euler"  # a last step adds no noise
            options |= {"diffusion": choice.diffusion, "norm": choice.norm, "last_step": None}
            if op.to == 1:
                options["last_step"] = choice.last_step
                options["last_step_size"] = min(choice.last_step_size, (1 - start) / op.steps)
        return make_sampler(method, steps=op.steps, interpolant=self.interpolant, prediction=self.prediction, **options)

    def query(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where the network is asked for the field at `(x, t)`."""
        return self._change.to_own(x, t) if self._change else (x, t)

    def answer(self, value: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The field at `(x, t)` from what the (guided) network said there."""
        return self._change.velocity(value, x, t) if self._change else value

    def data(self, prediction: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The data prediction D(x, t)."""
        return self.interpolant.convert(prediction, x, t, self.prediction, "data")


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
        x = node.x
        for done, op in enumerate(recipe.ops[position:noise_ops], position + 1):
            if isinstance(op, Neighbor):
                x = neighbor(x, op.cosine, recipe.seed, op.round, op.index)
            elif isinstance(op, Blend):
                x = blend(x, op.strength, recipe.seed, op.round, op.index)
            if done == noise_ops:
                latents.put(keys[done], Node(x))
        position, node = noise_ops, Node(x)
    return Start(position, recipe.prefix(position).time, node)


def program(order: Order, start: Start) -> tuple[object, ...]:
    """What orders must have in common to move in lockstep."""
    shape = tuple(
        (op.op, op.to, getattr(op, "steps", 0), len(getattr(op, "nudges", ())))
        if isinstance(op, Integrate | Renoise)
        else (op.op, getattr(op, "scale", None))
        for op in order.recipe.ops[start.position :]
    )
    known = start.node.prediction is not None
    return (order.sampler, start.position, start.t, shape, known, order.known, order.evaluated)


class Cohort:
    """Orders of one submission in lockstep: same program, same time."""

    def __init__(
        self,
        *,
        job: str,
        ticket: int,
        indices: Sequence[int],
        orders: Sequence[Order],
        starts: Sequence[Start],
        keys: Sequence[Sequence[bytes]],
        field: Field,
        generator: Generator,
        latents: Latents,
    ) -> None:
        self.job, self.ticket, self.indices = job, ticket, tuple(indices)
        self._orders, self._keys, self._field, self._latents = orders, keys, field, latents
        self._shape, self._interpolant = generator.shape, field.interpolant
        self._conditional = generator.rows([order.condition for order in orders])
        self._unconditional = generator.unconditional(len(orders)) if field.guidance.scale != 1 else None
        self._position, self._t = starts[0].position, starts[0].t
        self._x = torch.stack([start.node.x for start in starts])
        known = [start.node.prediction for start in starts if start.node.prediction is not None]
        self._prediction: Tensor | None = torch.stack(known) if known else None
        # A promised evaluation that is no longer at hand is made again by whatever asks for it first.
        self._again = orders[0].evaluated and self._prediction is None
        self._sampler: Sampler | None = None
        self._state: State | None = None
        size = len(orders)
        self._counts = torch.zeros(4, size, dtype=torch.int64)  # nfe, forwards, and both again
        self.done = False
        self._advance()

    # --- the next evaluation -------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Network rows that its next evaluation takes."""
        return len(self._active) + len(self._guided)

    @property
    def evaluations(self) -> int:
        """Evaluations of the field that its next step makes: one for each trajectory that still runs."""
        return len(self._active)

    def query(self) -> tuple[Tensor, Tensor, Rows]:
        """The network rows of the next evaluation: x, t and conditioning; guided rows come twice."""
        x, t = self._query_x, self._query_t
        rows = tuple(part[self._active] for part in self._conditional)
        if len(self._active) != len(self._query_x):
            x, t = x[self._active], t[self._active]
        x, t = self._field.query(x, t)
        if self._unconditional is not None and len(self._guided):
            places = self._guided_places
            x, t = torch.cat([x, x[places]]), torch.cat([t, t[places]])
            rows = tuple(
                torch.cat([part, other[self._guided]]) for part, other in zip(rows, self._unconditional, strict=True)
            )
        return x, t.float(), rows

    def take(self, output: Tensor) -> None:
        """The network's answers to `query`, row by row; moves on to the next query."""
        active, guided = len(self._active), len(self._guided)
        value = output[:active]
        if guided == active:
            value = self._field.guidance.combine(value, output[active:])
        elif guided:
            value = value.clone()
            value[self._guided_places] = self._field.guidance.combine(value[self._guided_places], output[active:])
        x, t = self._query_x, self._query_t
        if active != len(x):
            whole = torch.zeros_like(x)
            whole[self._active] = value
            value = whole
        known = self._orders[0].known
        offset = 2 if self._position < known or (self._again and self._position == known) else 0
        self._counts[offset].index_add_(0, self._active, torch.ones(active, dtype=torch.int64))
        self._counts[offset + 1].index_add_(0, self._active, torch.ones(active, dtype=torch.int64))
        self._counts[offset + 1].index_add_(0, self._guided, torch.ones(guided, dtype=torch.int64))
        if self._position == known:
            self._again = False
        prediction = self._field.answer(value, x, t)
        if self._state is None:
            self._prediction = prediction
            self._keep()
        else:
            self._step(prediction)
        self._advance()

    def samples(self, generator: Generator) -> list[Sample]:
        """The finished candidates, in the order of `indices`."""
        x = self._x
        if self._t < 1:
            assert self._prediction is not None
            x = self._field.data(self._prediction, x, self._probe_time())
        images = generator.decoder.decode(x)
        return [
            Sample(image, state, *counts)
            for image, state, counts in zip(images, x, self._counts.T.tolist(), strict=True)
        ]

    # --- from operation to operation -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Carry out operations until the field is wanted, or all is done."""
        while True:
            if self._state is not None:
                if not self._state.done:
                    return self._ask(self._state.query_x, self._state.query_t, self._state.active)
                self._arrive(self._state.x, self._op(0).to)
            elif self._position < len(self._orders[0].recipe.ops):
                self._begin()
            elif self._t == 1 or self._prediction is not None:
                self.done = True
                return None
            else:
                everyone = torch.ones(len(self._x), dtype=torch.bool)
                return self._ask(self._x, self._probe_time(), everyone)

    def _begin(self) -> None:
        """The operation at `_position`."""
        ops = [self._op(row) for row in range(len(self._orders))]
        first = ops[0]
        seed = self._orders[0].recipe.seed
        if isinstance(first, Integrate):
            self._sampler = self._field.sampler(self._t, first)
            noise = None
            if self._sampler.noise_at_start:  # it asks elsewhere first: an evaluation here was never of use
                noise, self._again = self._noise(0), self._again and self._position != self._orders[0].known
            self._state = self._sampler.init(self._x, noise)
            if self._prediction is not None:
                if not self._sampler.noise_at_start:
                    self._step(self._prediction)
                self._prediction = None
        elif isinstance(first, Renoise):
            noise = torch.stack([renoise_noise(seed, op.round, op.index, self._shape) for op in ops])
            t, to = torch.tensor(self._t), torch.tensor(first.to)
            self._arrive(self._interpolant.renoise(self._x, t, to, noise), first.to)
        elif isinstance(first, Perturb):
            noise = torch.stack([perturb_noise(seed, op.round, op.index, self._shape) for op in ops])
            self._arrive(self._x + first.scale * noise, self._t)
        else:
            raise ValueError(f"operation {first.op!r} can only stand at the start of a recipe")

    def _arrive(self, x: Tensor, t: float) -> None:
        """An operation is done: the state is `x` at `t`."""
        self._x, self._t, self._prediction, self._state = x, t, None, None
        self._position += 1
        if t < 1:
            self._keep()

    def _step(self, prediction: Tensor) -> None:
        assert self._sampler is not None and self._state is not None
        noise = None if self._state.draw is None else self._noise(self._state.draw)
        self._state = self._sampler.step(self._state, prediction, noise)

    def _noise(self, draw: int) -> Tensor:
        """`[B, C, H, W]`, draw number `draw` of the integration under way."""
        noises = []
        for row, order in enumerate(self._orders):
            op, seed = self._op(row), order.recipe.seed
            assert isinstance(op, Integrate)
            noise = step_noise(seed, op.round, op.index, draw, self._shape)
            for change in op.nudges if draw == 0 else ():
                noise = noise + nudge(self._shape, change.radius, seed, change.round, change.index)
            noises.append(noise)
        return torch.stack(noises)

    def _op(self, row: int) -> Any:
        return self._orders[row].recipe.ops[self._position]

    def _ask(self, x: Tensor, t: Tensor, active: Tensor) -> None:
        """Set the next query, and which rows of it are active and guided."""
        self._query_x, self._query_t = x, t
        self._active = active.nonzero().squeeze(1)
        guidance = self._field.guidance
        if guidance.scale == 1:
            self._guided = self._guided_places = self._active[:0]
        else:
            low, high = guidance.interval
            wanted = t[self._active]
            self._guided_places = ((low <= wanted) & (wanted <= high)).nonzero().squeeze(1)
            self._guided = self._active[self._guided_places]

    def _probe_time(self) -> Tensor:
        """`[B]`, where the field is evaluated for the data prediction at `_t`: where the next step would ask too."""
        sampler = self._field.sampler(self._t, Integrate(to=1.0, steps=2))
        spec: Any = sampler
        start = spec.interval()[0] if hasattr(spec, "interval") else spec.spec.ode_interval()[0]
        return torch.full((len(self._x),), start, dtype=self._x.dtype)

    def _keep(self) -> None:
        """Leave the state behind for later orders."""
        for row, x in enumerate(self._x):
            prediction = None if self._prediction is None else self._prediction[row].clone()
            self._latents.put(self._keys[row][self._position], Node(x.clone(), prediction))
