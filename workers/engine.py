"""The sampling engine: many jobs' trajectories, each at its own time, advanced by shared forwards.

    ticket = engine.submit("job-1", orders)
    while engine.busy:
        for done in engine.step():       # schedule -> run -> postprocess
            done.ticket, done.samples

SiT takes a time for every sample, so trajectories of different jobs, samplers, step counts and classes share one
forward; a new one joins at the next step and a finished one leaves. Imports torch, not Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.generator import Generator
from models.guidance import combine
from models.noise import gaussian
from models.samplers import Sampler, State, make_sampler
from workers.jobs.schemas import Recipe
from workers.scheduler import Scheduler

#: A forward is shared by at least this many cohorts' worth of room, so that several jobs fit in one.
COHORTS_PER_FORWARD = 4


@dataclass(frozen=True)
class Order:
    """A trajectory to sample: where its noise comes from, what of, and how."""

    recipe: Recipe
    class_index: int
    method: str
    steps: int
    guidance: float


@dataclass(frozen=True)
class Sample:
    """A finished trajectory: its image `[H, W, 3]` uint8 and the evaluations it really took."""

    image: Tensor
    nfe: int
    forwards: int


@dataclass(frozen=True)
class Done:
    """A submission whose every order is sampled; samples in the order of the orders."""

    ticket: int
    samples: tuple[Sample, ...]


@dataclass(eq=False)
class _Cohort:
    """Trajectories of one submission in lockstep: same sampler, same guidance, same time."""

    job: str
    ticket: int
    indices: tuple[int, ...]
    classes: Tensor
    sampler: Sampler
    guidance: float
    state: State
    nfe: int = 0

    @property
    def guided(self) -> bool:
        return self.guidance > 1

    @property
    def rows(self) -> int:
        return len(self.indices) * (2 if self.guided else 1)


@dataclass
class _Submission:
    samples: list[Sample | None]
    cohorts: list[_Cohort] = field(default_factory=list)


class Engine:
    """Step-level batching over one generator. Not thread-safe: one thread submits, steps and cancels.

    Args:
        generator: the model.
        batch: network rows of one forward; at least 2, as a guided evaluation takes two.
        deterministic: pad every forward to `batch` rows, so that a row's result never depends on its neighbours.

    Attributes:
        nfe, forwards: evaluations and network rows so far, padding not counted.
        steps: forwards of the network so far.
    """

    def __init__(self, generator: Generator, *, batch: int = 32, deterministic: bool = True) -> None:
        if batch < 2:
            raise ValueError(f"batch must be at least 2, not {batch}")
        self.generator, self.batch, self.deterministic = generator, batch, deterministic
        self._scheduler: Scheduler[_Cohort] = Scheduler(batch)
        self._submissions: dict[int, _Submission] = {}
        self._next_ticket = 0
        self.nfe = self.forwards = self.steps = 0

    @property
    def busy(self) -> bool:
        """Something is left to sample."""
        return len(self._scheduler) > 0

    def submit(self, job: str, orders: Sequence[Order]) -> int:
        """Queue trajectories of a job; they join at the next step.

        Returns:
            The ticket under which `step` reports them done, all at once.

        Raises:
            ValueError: there are no orders, a class is out of range, or a sampler is unknown.
        """
        if not orders:
            raise ValueError("a submission needs at least one order")
        for order in orders:
            if not 0 <= order.class_index < self.generator.null_class:
                raise ValueError(f"class {order.class_index} is not in [0, {self.generator.null_class})")
        ticket = self._next_ticket
        submission = _Submission(samples=[None] * len(orders))
        kinds: dict[tuple[str, int, float], list[int]] = {}
        for index, order in enumerate(orders):
            kinds.setdefault((order.method, order.steps, order.guidance), []).append(index)
        for (method, steps, guidance), indices in kinds.items():
            sampler = make_sampler(
                method, steps=steps, interpolant=self.generator.interpolant, prediction=self.generator.prediction
            )
            size = max(1, self.batch // COHORTS_PER_FORWARD // (2 if guidance > 1 else 1))
            for start in range(0, len(indices), size):
                chosen = tuple(indices[start : start + size])
                noises = torch.stack([self._noise(orders[i].recipe) for i in chosen])
                submission.cohorts.append(
                    _Cohort(
                        job=job,
                        ticket=ticket,
                        indices=chosen,
                        classes=torch.tensor([orders[i].class_index for i in chosen]),
                        sampler=sampler,
                        guidance=guidance,
                        state=sampler.init(noises),
                    )
                )
        for cohort in submission.cohorts:
            self._scheduler.add(cohort)
        self._submissions[ticket] = submission
        self._next_ticket += 1
        return ticket

    def cancel(self, ticket: int) -> None:
        """Drop a submission, begun or not; nothing happens when it is unknown or done."""
        submission = self._submissions.pop(ticket, None)
        for cohort in submission.cohorts if submission else ():
            self._scheduler.remove(cohort)

    def step(self) -> list[Done]:
        """One forward for as many trajectories as fit; returns the submissions that it finished."""
        cohorts = self._scheduler.pick()
        if not cohorts:
            return []
        predictions = self._run(cohorts)
        finished = []
        for cohort, prediction in zip(cohorts, predictions, strict=True):
            cohort.state = cohort.sampler.step(cohort.state, prediction, None)
            cohort.nfe += 1
            if bool(cohort.state.done):
                finished.append(cohort)
        return [done for cohort in finished if (done := self._finish(cohort))]

    def _run(self, cohorts: list[_Cohort]) -> list[Tensor]:
        """Evaluate the guided field of every cohort in one forward."""
        x, t, y = [], [], []
        for cohort in cohorts:
            for classes in self._conditions(cohort):
                x.append(cohort.state.query_x)
                t.append(cohort.state.query_t)
                y.append(classes)
        rows = [len(part) for part in x]
        used = sum(rows)
        xs, ts, ys = torch.cat(x), torch.cat(t).float(), torch.cat(y)
        if self.deterministic and used < self.batch:
            pad = self.batch - used
            xs = torch.cat([xs, xs.new_zeros(pad, *xs.shape[1:])])
            ts, ys = torch.cat([ts, ts.new_zeros(pad)]), torch.cat([ys, ys.new_zeros(pad)])
        parts = iter(self.generator.evaluate(xs, ts, ys)[:used].split(rows))
        self.steps += 1
        self.forwards += used
        predictions = []
        for cohort in cohorts:
            self.nfe += len(cohort.indices)
            conditional = next(parts)
            if cohort.guided:
                conditional = combine(
                    conditional, next(parts), cohort.guidance, channels=self.generator.guided_channels
                )
            predictions.append(conditional)
        return predictions

    def _conditions(self, cohort: _Cohort) -> tuple[Tensor, ...]:
        if not cohort.guided:
            return (cohort.classes,)
        return (cohort.classes, torch.full_like(cohort.classes, self.generator.null_class))

    def _noise(self, recipe: Recipe) -> Tensor:
        return gaussian(recipe.seed, recipe.round, recipe.index, self.generator.shape)

    def _finish(self, cohort: _Cohort) -> Done | None:
        """Decode a finished cohort; the whole submission, if this was its last."""
        self._scheduler.remove(cohort)
        submission = self._submissions[cohort.ticket]
        submission.cohorts.remove(cohort)
        forwards = cohort.nfe * (2 if cohort.guided else 1)
        for index, image in zip(cohort.indices, self.generator.decode(cohort.state.x), strict=True):
            submission.samples[index] = Sample(image=image, nfe=cohort.nfe, forwards=forwards)
        if submission.cohorts:
            return None
        del self._submissions[cohort.ticket]
        return Done(cohort.ticket, tuple(sample for sample in submission.samples if sample is not None))
