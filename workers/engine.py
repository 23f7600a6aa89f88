"""The sampling engine: many jobs' trajectories, each at its own time, advanced by shared forwards.

    ticket = engine.submit("job-1", orders)
    while engine.busy:
        for done in engine.step():       # schedule -> run -> postprocess
            done.ticket, done.samples

SiT takes a time for every sample, so trajectories of different jobs, samplers, step counts and conditions share one
forward; a new one joins at the next step and a finished one leaves. Imports torch, not Ray.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from models.generator import Generator
from workers.latents import Latents, keys
from workers.scheduler import Scheduler
from workers.trajectory import Cohort, Field, Order, Sample, Start, find_start, program

#: A forward is shared by at least this many cohorts' worth of room, so that several jobs fit in one.
COHORTS_PER_FORWARD = 4
LATENT_BYTES = 2**30
#: Forwards that are timed at the start.
MEASURED = 3


@dataclass(frozen=True)
class Done:
    """A submission whose every order is made; samples in the order of the orders."""

    ticket: int
    samples: tuple[Sample, ...]


@dataclass
class _Portion:
    """Orders of one program: their places in the submission, where they begin, and the keys of their states."""

    indices: list[int] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    keys: list[list[bytes]] = field(default_factory=list)


@dataclass
class _Submission:
    samples: list[Sample | None]
    cohorts: list[Cohort] = field(default_factory=list)


class Engine:
    """Step-level batching over one generator. Not thread-safe: one thread submits, steps and cancels.

    Args:
        generator: the model.
        batch: network rows of one forward; at least 2, as a guided evaluation takes two.
        deterministic: pad every forward to `batch` rows, so that a row's result never depends on its neighbours.
        latent_bytes: memory for states midway, which later orders may go on from.

    Attributes:
        nfe, forwards: evaluations and network rows so far, padding not counted.
        steps: forwards of the network so far.
        latents: the states midway that are at hand.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        batch: int = 32,
        deterministic: bool = True,
        latent_bytes: int = LATENT_BYTES,
    ) -> None:
        if batch < 2:
            raise ValueError(f"batch must be at least 2, not {batch}")
        self.generator, self.batch, self.deterministic = generator, batch, deterministic
        self.latents = Latents(latent_bytes)
        self._scheduler: Scheduler[Cohort] = Scheduler(batch)
        self._submissions: dict[int, _Submission] = {}
        self._finished: list[Cohort] = []
        self._next_ticket = 0
        self.nfe = self.forwards = self.steps = 0

    @property
    def busy(self) -> bool:
        """Something is left to do."""
        return len(self._scheduler) > 0 or bool(self._finished)

    def submit(self, job: str, orders: Sequence[Order]) -> int:
        """Queue orders of a job; they join at the next step.

        Returns:
            The ticket under which `step` reports them done, all at once.

        Raises:
            ValueError: there are no orders, a condition is not one of the model's, or a sampler is unknown.
        """
        if not orders:
            raise ValueError("a submission needs at least one order")
        submission = _Submission(samples=[None] * len(orders))
        for portion in self._portions(job, orders):
            chosen = [orders[i] for i in portion.indices]
            submission.cohorts.append(
                Cohort(
                    job=job,
                    ticket=self._next_ticket,
                    indices=portion.indices,
                    orders=chosen,
                    starts=portion.starts,
                    keys=portion.keys,
                    field=Field(self.generator, chosen[0].sampler),
                    generator=self.generator,
                    latents=self.latents,
                )
            )
        for cohort in submission.cohorts:
            if cohort.done:
                self._finished.append(cohort)
            else:
                self._scheduler.add(cohort)
        self._submissions[self._next_ticket] = submission
        self._next_ticket += 1
        return self._next_ticket - 1

    def measure(self) -> float:
        """Network rows a second in full batches; the first one, which may compile, is not counted."""
        x = torch.zeros(self.batch, *self.generator.shape)
        t, rows = torch.full((self.batch,), 0.5), self.generator.unconditional(self.batch)
        self.generator.evaluate(x, t, rows)
        begin = time.perf_counter()
        for _ in range(MEASURED):
            self.generator.evaluate(x, t, rows)
        return MEASURED * self.batch / (time.perf_counter() - begin)

    def cancel(self, ticket: int) -> None:
        """Drop a submission, begun or not; nothing happens when it is unknown or done."""
        submission = self._submissions.pop(ticket, None)
        for cohort in submission.cohorts if submission else ():
            if cohort.done:
                self._finished.remove(cohort)
            else:
                self._scheduler.remove(cohort)

    def step(self) -> list[Done]:
        """One forward for as many trajectories as fit; returns the submissions that it finished."""
        if cohorts := self._scheduler.pick():
            self._run(cohorts)
        for cohort in cohorts:
            if cohort.done:
                self._scheduler.remove(cohort)
                self._finished.append(cohort)
        finished, self._finished = self._finished, []
        return [done for cohort in finished if (done := self._finish(cohort))]

    def _portions(self, job: str, orders: Sequence[Order]) -> list[_Portion]:
        """Orders that move in lockstep, put together, at most a cohort each."""
        open_: dict[object, _Portion] = {}
        portions: list[_Portion] = []
        for index, order in enumerate(orders):
            names = keys(job, order.condition, order.sampler, order.recipe)
            start = find_start(order, names, self.latents, self.generator.shape)
            kind = program(order, start)
            size = max(1, self.batch // COHORTS_PER_FORWARD // order.sampler.rows)
            if kind not in open_ or len(open_[kind].indices) == size:
                open_[kind] = _Portion()
                portions.append(open_[kind])
            open_[kind].indices.append(index)
            open_[kind].starts.append(start)
            open_[kind].keys.append(names)
        return portions

    def _run(self, cohorts: list[Cohort]) -> None:
        """Evaluate the field of every cohort in one forward."""
        queries = [cohort.query() for cohort in cohorts]
        counts = [len(x) for x, _, _ in queries]
        used = sum(counts)
        x, t = torch.cat([q[0] for q in queries]), torch.cat([q[1] for q in queries])
        rows = tuple(torch.cat(parts) for parts in zip(*(q[2] for q in queries), strict=True))
        if self.deterministic:
            x, t, rows = _padded(x, self.batch), _padded(t, self.batch), tuple(_padded(r, self.batch) for r in rows)
        outputs = self.generator.evaluate(x, t, rows)[:used].split(counts)
        self.steps += 1
        self.forwards += used
        for cohort, output in zip(cohorts, outputs, strict=True):
            self.nfe += cohort.evaluations
            cohort.take(output)

    def _finish(self, cohort: Cohort) -> Done | None:
        """Decode a finished cohort; the whole submission, if this was its last."""
        submission = self._submissions[cohort.ticket]
        submission.cohorts.remove(cohort)
        for index, sample in zip(cohort.indices, cohort.samples(self.generator), strict=True):
            submission.samples[index] = sample
        if submission.cohorts:
            return None
        del self._submissions[cohort.ticket]
        return Done(cohort.ticket, tuple(sample for sample in submission.samples if sample is not None))


def _padded(rows: Tensor, size: int) -> Tensor:
    """`rows` with zeros after them, up to `size` in all."""
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])]) if len(rows) < size else rows
