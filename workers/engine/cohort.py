"""Trajectories in lockstep: how recipes are carried out, one evaluation of the field at a time.

States live on the generator's device and every step of a fixed-step method is queued there without waiting for it: on
CUDA the device works while Python prepares what comes next. Noise is drawn on the CPU and copied without waiting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.generator import Generator, Rows
from sitsearch.models.noise import nudge, perturb_noise, renoise_noise, step_noise
from sitsearch.models.samplers import Sampler, State
from sitsearch.models.samplers.base import rows_at
from sitsearch.models.samplers.registry import evaluations_per_step
from sitsearch.workers.engine import guiding
from sitsearch.workers.engine.gradients import Wanted
from sitsearch.workers.engine.guiding import Guiding, References
from sitsearch.workers.engine.latents import Latents, Node, keys
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.previews import Previews
from sitsearch.workers.engine.references import Table
from sitsearch.workers.engine.trajectory import Field, Sample, Start, find_start, program
from sitsearch.workers.jobs.recipe import Integrate, Perturb, Renoise

#: Tensors that a trajectory holds besides the slopes of its step: solution, query, prediction, and what is being made.
HELD = 4


class Cohort:
    """Orders of one submission and outline, in lockstep. Nothing of it is in memory before it begins.

    Args:
        job, ticket: whose it is.
        indices: places of the orders in the submission.
        orders: of one `outline`.
        generator, latents: the model, and the states midway that are at hand.

    Attributes:
        begun: its states are in memory.
        done: there is nothing left to evaluate.
        wanted: the gradients that it waits for; None if it waits for none.

    Raises:
        ValueError: the sampler is unknown.
    """

    def __init__(
        self,
        *,
        job: str,
        ticket: int,
        indices: Sequence[int],
        orders: Sequence[Order],
        generator: Generator,
        latents: Latents,
    ) -> None:
        self.job, self.ticket, self.indices = job, ticket, tuple(indices)
        self._orders, self._generator, self._latents = orders, generator, latents
        self._field = Field(generator, orders[0].sampler)
        self._shape, self._interpolant = generator.shape, self._field.interpolant
        self._references: References | None = None
        self.begun = self.done = False
        self.wanted: Wanted | None = None

    @property
    def nbytes(self) -> int:
        """Memory of its states, about."""
        numbers = len(self._orders) * torch.Size(self._shape).numel()
        held = HELD + (guiding.HELD if self._orders[0].recipe.guided else 0)
        return 4 * numbers * (held + evaluations_per_step(self._orders[0].sampler.method))

    @property
    def size(self) -> int:
        """Its trajectories."""
        return len(self._orders)

    @property
    def waits(self) -> bool:
        """It needs gradients before its next evaluation."""
        return self.wanted is not None

    def take_references(self, tables: Mapping[int, Table]) -> None:
        """Those of its orders, before it begins; see `tables_of`."""
        table = tables.get(id(self._orders[0].references))
        self._references = None if table is None else table.references

    def begin(self) -> list[Cohort]:
        """Find where each order begins, and go to the first query.

        Returns:
            Cohorts that have begun too: of the orders that begin elsewhere than the first one, as some states were
            at hand and others were lost.

        Raises:
            ValueError: a recipe cannot be carried out.
        """
        groups: dict[object, list[tuple[int, Order, Start, list[bytes]]]] = {}
        for index, order in zip(self.indices, self._orders, strict=True):
            names = keys(self.job, order.condition, order.sampler, order.recipe)
            start = find_start(order, names, self._latents, self._shape)
            groups.setdefault(program(order, start), []).append((index, order, start, names))
        others = []
        for group in list(groups.values())[1:]:
            other = Cohort(
                job=self.job,
                ticket=self.ticket,
                indices=[index for index, *_ in group],
                orders=[order for _, order, *_ in group],
                generator=self._generator,
                latents=self._latents,
            )
            other._references = self._references
            other._open([start for _, _, start, _ in group], [names for *_, names in group])
            others.append(other)
        group = next(iter(groups.values()))
        self.indices, self._orders = tuple(index for index, *_ in group), [order for _, order, *_ in group]
        self._open([start for _, _, start, _ in group], [names for *_, names in group])
        return others

    def _open(self, starts: Sequence[Start], names: Sequence[Sequence[bytes]]) -> None:
        orders, generator, size = self._orders, self._generator, len(self._orders)
        device = generator.device
        self._keys = names
        self._conditional = _on(generator.rows([order.condition for order in orders]), device)
        guided = self._field.guidance.scale != 1
        self._unconditional = _on(generator.unconditional(size), device) if guided else None
        self._position, self._t = starts[0].position, starts[0].t
        self._x = self._placed([start.node.x for start in starts])
        known = [start.node.prediction for start in starts if start.node.prediction is not None]
        self._prediction: Tensor | None = torch.stack(known) if known else None
        # A promised evaluation that is no longer at hand is made again by whatever asks for it first.
        self._again = orders[0].evaluated and self._prediction is None
        self._sampler: Sampler | None = None
        self._state: State | None = None
        self._counts = torch.zeros(6, size, dtype=torch.int64)  # nfe, forwards, gradients, and all of them again
        self._guiding: Guiding | None = None
        self._waiting = self._x  # the prediction that gradients are to guide, while it waits for them
        self._previews = Previews(size, device)
        self._active: Tensor | None = None
        self._guided: Tensor | None = None
        self._pairs = 0
        self.begun = True
        self._advance()

    # --- the next evaluation -------------------------------------------------------------------------------------

    @property
    def rows(self) -> int:
        """Network rows that its next evaluation takes; before it begins, at most."""
        if not self.begun:
            return len(self._orders) * self._orders[0].sampler.rows
        return self.evaluations + self._pairs

    @property
    def evaluations(self) -> int:
        """Evaluations of the field that its next step makes: one for each trajectory that still runs."""
        return len(self._orders) if self._active is None else len(self._active)

    def query(self) -> tuple[Tensor, Tensor, Rows]:
        """The network rows of the next evaluation: x, t and conditioning; guided rows come twice."""
        x, t, rows = self._query_x, self._query_t, self._conditional
        if self._active is not None:
            x, t, rows = x[self._active], t[self._active], tuple(part[self._active] for part in rows)
        x, t = self._field.query(x, t)
        if self._unconditional is not None and self._pairs:
            again_x, again_t, others = x, t, self._unconditional
            if self._guided is not None:
                again_x, again_t = x[self._guided], t[self._guided]
            if self._pairs != len(self._orders):
                others = tuple(part[: self._pairs] for part in others)
            x, t = torch.cat([x, again_x]), torch.cat([t, again_t])
            rows = tuple(torch.cat(parts) for parts in zip(rows, others, strict=True))
        return x, t.float(), rows

    def take(self, output: Tensor) -> None:
        """The network's answers to `query`, row by row; moves on to the next query.

        Raises:
            ValueError: the recipe's next operation cannot be carried out.
        """
        active = self.evaluations
        value, other = output[:active], output[active:]
        if self._guided is not None and self._pairs:
            value = value.clone()
            value[self._guided] = self._field.guidance.combine(value[self._guided], other)
        elif self._pairs:
            value = self._field.guidance.combine(value, other)
        x, t = self._query_x, self._query_t
        if self._active is not None:
            whole = torch.zeros_like(x)
            whole[self._active] = value
            value = whole
        known = self._orders[0].known
        self._count(again=self._position < known or (self._again and self._position == known))
        if self._position == known:
            self._again = False
        prediction = self._field.answer(value, x, t)
        self._look(prediction, x, t, self._active)
        if self._state is None:
            self._prediction = prediction
            self._keep()
        else:
            self._move_on(prediction)
        self._advance()

    def steer(self, gradients: Tensor) -> None:
        """The gradients `[B, C, H, W]` that it waited for; moves on to the next query.

        Raises:
            ValueError: the recipe's next operation cannot be carried out.
        """
        assert self._guiding is not None and self._state is not None
        prediction, self.wanted = self._waiting, None
        self._counts[5 if self._position < self._orders[0].known else 2] += 1
        self._guiding.take(gradients, self._state.query_x, self._state.query_t)
        self._step(self._guided_prediction(prediction))
        self._advance()

    def samples(self) -> list[Sample]:
        """The finished candidates, in the order of `indices`."""
        x = self._x
        if self._t < 1:
            assert self._prediction is not None
            x = self._field.data(self._prediction, x, self._probe_time())
        images = self._generator.decoder.decode(x)
        previews: list[Tensor | None] = [None] * len(x)
        if self._orders[0].preview:
            seen = self._previews.data
            previews = list(images if seen is None else self._generator.decoder.decode(seen))
        counts, broken = self._counts.T.tolist(), (~x.isfinite().flatten(1).all(1)).tolist()
        return [
            Sample(image, state, preview, bad, *row)
            for image, state, row, preview, bad in zip(images, x, counts, previews, broken, strict=True)
        ]

    # --- from operation to operation -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Carry out operations until the field or gradients are wanted, or all is done."""
        while not self.waits:
            if self._state is not None:
                if not self._state.done:
                    active = self._state.active if self._field.adaptive else None  # all of them, otherwise
                    return self._ask(self._state.query_x, self._state.query_t, active)
                self._arrive(self._state.x, self._op(0).to)
            elif self._position < len(self._orders[0].recipe.ops):
                self._carry_out()
            elif self._t == 1 or self._prediction is not None:
                self.done = True
                return None
            else:
                return self._ask(self._x, self._probe_time(), None)

    def _carry_out(self) -> None:
        """The operation at `_position`."""
        ops = [self._op(row) for row in range(len(self._orders))]
        first, drawn = ops[0], [(order.recipe.seed, op) for order, op in zip(self._orders, ops, strict=True)]
        if isinstance(first, Integrate):
            self._sampler = self._field.sampler(self._t, first)
            noise = None
            if self._sampler.noise_at_start:  # it asks elsewhere first: an evaluation here was never of use
                noise, self._again = self._noise(0), self._again and self._position != self._orders[0].known
            self._state = self._sampler.init(self._x, noise)
            self._guiding = self._field.guiding(self._t, ops, self._orders, self._references)
            prediction, self._prediction = self._prediction, None
            if prediction is not None and not self._sampler.noise_at_start:
                self._look(prediction, self._x, rows_at(self._t, self._x), None)
                self._move_on(prediction)
        elif isinstance(first, Renoise):
            noise = self._placed([renoise_noise(seed, op.round, op.index, self._shape) for seed, op in drawn])
            t, to = rows_at(self._t, self._x), rows_at(first.to, self._x)
            self._previews = Previews(len(self._x), self._x.device)
            self._arrive(self._interpolant.renoise(self._x, t, to, noise), first.to)
        elif isinstance(first, Perturb):
            noise = self._placed([perturb_noise(seed, op.round, op.index, self._shape) for seed, op in drawn])
            self._arrive(self._x + first.scale * noise, self._t)
        else:
            raise ValueError(f"operation {first.op!r} can only stand at the start of a recipe")

    def _arrive(self, x: Tensor, t: float) -> None:
        """An operation is done: the state is `x` at `t`."""
        self._x, self._t, self._prediction, self._state = x, t, None, None
        self._position += 1
        if t < 1 or self._orders[0].revisited:
            self._keep()

    def _look(self, prediction: Tensor, x: Tensor, t: Tensor, active: Tensor | None) -> None:
        """Keep the data predictions as previews, until they are of the level that is wanted; see `Sample.preview`.

        What lies before `Order.known` is not looked at: whether it is evaluated again is a matter of luck.
        """
        if not self._orders[0].preview or self._position < self._orders[0].known:
            return
        self._previews.see(self._field.data(prediction, x, t), self._interpolant, t, active)

    def _move_on(self, prediction: Tensor) -> None:
        """Take the step's stage, or wait for the gradients that it needs first."""
        state = self._state
        assert state is not None
        if self._guiding is not None and not state.memory:  # of a step, the first evaluation
            step = self._field.step_of(state)
            data = self._field.data(prediction, state.query_x, state.query_t)
            self.wanted = self._guiding.begin(step, data)
            self._waiting = prediction
        if not self.waits:
            self._step(self._guided_prediction(prediction))

    def _guided_prediction(self, prediction: Tensor) -> Tensor:
        """What the network predicts at the query, with its data prediction moved."""
        if self._guiding is None or not self._guiding.moves:
            return prediction
        assert self._state is not None
        x, t = self._state.query_x, self._state.query_t
        return self._field.of_data(self._guiding.moved(self._field.data(prediction, x, t), x, t), x, t)

    def _step(self, prediction: Tensor) -> None:
        assert self._sampler is not None and self._state is not None
        noise = None if self._state.draw is None else self._noise(self._state.draw)
        if noise is not None and self._guiding is not None:
            noise = self._guiding.tilted(noise)
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
        return self._placed(noises)

    def _op(self, row: int) -> Any:
        return self._orders[row].recipe.ops[self._position]

    def _ask(self, x: Tensor, t: Tensor, active: Tensor | None) -> None:
        """Set the next query: which rows of it are active, and which of these are guided; None is all of them."""
        self._query_x, self._query_t = x, t
        self._active = None if active is None or bool(active.all()) else active.nonzero().squeeze(1)
        self._guided, self._pairs = None, 0
        guidance = self._field.guidance
        if guidance.scale == 1:
            return
        self._pairs = self.evaluations
        low, high = guidance.interval
        if (low, high) != (0, 1):
            wanted = t if self._active is None else t[self._active]
            guided = ((low <= wanted) & (wanted <= high)).nonzero().squeeze(1)
            if len(guided) != self._pairs:
                self._guided, self._pairs = guided, len(guided)

    def _count(self, *, again: bool) -> None:
        """Add this evaluation to the NFE and the forwards of the counts."""
        nfe, forwards, _ = self._counts.unflatten(0, (2, 3))[int(again)]
        active = slice(None) if self._active is None else self._active.cpu()
        nfe[active] += 1
        forwards[active] += 1
        if self._guided is None and self._pairs:
            forwards[active] += 1
        elif self._guided is not None:
            guided = self._guided if self._active is None else self._active[self._guided]
            forwards[guided.cpu()] += 1

    def _placed(self, parts: Sequence[Tensor]) -> Tensor:
        """`[B, ...]` on the generator's device."""
        device = self._generator.device
        if any(part.is_cuda for part in parts):
            return torch.stack([_sent(part, device) for part in parts])
        return _sent(torch.stack(list(parts)), device)

    def _probe_time(self) -> Tensor:
        """`[B]`, where the field is evaluated for the data prediction at `_t`: where the next step would ask too."""
        sampler = self._field.sampler(self._t, Integrate(to=1.0, steps=2))
        spec: Any = sampler
        start = spec.interval()[0] if hasattr(spec, "interval") else spec.spec.ode_interval()[0]
        return torch.full((len(self._x),), start, dtype=self._x.dtype, device=self._x.device)

    def _keep(self) -> None:
        """Leave the state behind for later orders."""
        for row, x in enumerate(self._x):
            prediction = None if self._prediction is None else self._prediction[row].clone()
            self._latents.put(self._keys[row][self._position], Node(x.clone(), prediction))


def _on(rows: Rows, device: torch.device) -> Rows:
    return tuple(_sent(part, device) for part in rows)


def _sent(part: Tensor, device: torch.device) -> Tensor:
    """On the device, without waiting for what it does."""
    if device.type != "cuda" or part.is_cuda:
        return part.to(device)
    return part.pin_memory().to(device, non_blocking=True)
