"""The sampling engine: many jobs' trajectories, each at its own time, advanced by shared forwards.

    ticket = engine.submit("job-1", orders)
    while engine.busy:
        for done in engine.step():       # schedule -> run -> postprocess
            done.ticket, done.samples

SiT takes a time for every sample, so trajectories of different jobs, samplers, step counts and conditions share one
forward; a new one joins at the next step and a finished one leaves. What waits is recipes: states are made when their
first forward comes, within a bound on memory. Imports torch, not Ray.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache

import torch

from sitsearch.models.generator import Generator
from sitsearch.workers.engine.cohort import Cohort
from sitsearch.workers.engine.decoding import Decoding
from sitsearch.workers.engine.fingerprints import fingerprint_of
from sitsearch.workers.engine.forwards import Forwards, filling
from sitsearch.workers.engine.gradients import Gradients, Source
from sitsearch.workers.engine.latents import Latents, Node, keys
from sitsearch.workers.engine.machine import keep_what_is_made
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.references import Table, tables_of
from sitsearch.workers.engine.scheduler import Scheduler
from sitsearch.workers.engine.submissions import Done, Submission
from sitsearch.workers.engine.trajectory import outline, planned_rows

log = logging.getLogger(__name__)

LATENT_BYTES = 2**30
#: A cohort takes at most this fraction of a forward, so that several fit in one.
COHORTS = 4
#: States under way may take this part of the memory that is free when the engine starts.
LIVE_SHARE = 4
#: Forwards that may be queued on a CUDA device: one runs, one waits, so that the device never does.
QUEUED = 2


def free_memory(device: torch.device) -> int:
    """Bytes that are free where states live."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Engine:
    """Step-level batching over one generator. Not thread-safe: one thread submits, steps and cancels.

    Args:
        generator: the model.
        batch: network rows of one forward at most; at least 2, as a guided evaluation takes two.
        deterministic: pad every forward to a size that gives a row the very bits that `batch` rows give it (see
            `BatchSizes`), so that a result never depends on what else is sampled.
        buckets: the only sizes that forwards are padded to; None is any, or in deterministic mode those that hold of
            `halvings`.
        latent_bytes: memory for states midway, which later orders may go on from.
        live_bytes: memory for the states of trajectories under way; what does not fit waits as recipes. None is a
            quarter of what is free.
        aside: decode finished samples on a thread (and, on CUDA, a stream) of their own while the next forward runs.
            None is on CUDA only: on the CPU, forwards use every core there is.
        gradients: where those of verifiers come from; None where nothing can be guided by them.

    Attributes:
        nfe, forwards: evaluations and network rows so far, padding and warm-up not counted.
        steps: forwards of the network so far.
        warm_up_forwards: network rows of warm-up, and of trying out sizes.
        latents: the states midway that are at hand.
        live: bytes of the states under way.
        fingerprint: what the bits of its samples depend on.

    Raises:
        ValueError: `batch` is less than 2, or the largest bucket is not `batch`.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        batch: int = 32,
        deterministic: bool = True,
        buckets: Sequence[int] | None = None,
        latent_bytes: int = LATENT_BYTES,
        live_bytes: int | None = None,
        aside: bool | None = None,
        gradients: Source | None = None,
    ) -> None:
        if batch < 2:
            raise ValueError(f"batch must be at least 2, not {batch}")
        if buckets and max(buckets) != batch:
            raise ValueError(f"the largest bucket must be the batch, {batch}, not {max(buckets)}")
        self.generator, self.batch, self.deterministic = generator, batch, deterministic
        self.fingerprint = fingerprint_of(generator, batch=batch, deterministic=deterministic)
        self._forwards = Forwards(generator, batch, deterministic=deterministic, buckets=buckets)
        self.latents, self.live = Latents(latent_bytes), 0
        self._live_bytes = free_memory(generator.device) // LIVE_SHARE if live_bytes is None else live_bytes
        self._scheduler: Scheduler[Cohort] = Scheduler(batch)
        self._submissions: dict[int, Submission] = {}
        self._before: dict[int, int] = {}  # the tickets that others wait for, and whose
        self._held: dict[Cohort, int] = {}
        self._failed: list[Done] = []
        self._on_cuda = generator.device.type == "cuda"
        self._decoding = Decoding(generator.device, aside=aside)
        self._queued: deque[torch.cuda.Event] = deque()
        self._gradients: Gradients[Cohort] = Gradients(gradients)
        self._next_ticket = 0
        self.nfe = self.forwards = self.steps = 0

    @property
    def fill(self) -> int:
        """Rows that forwards are filled with: `batch`, unless `measure` found that fewer do as well; see `filling`."""
        return self._scheduler.batch

    @fill.setter
    def fill(self, rows: int) -> None:
        self._scheduler.batch = rows

    @property
    def warm_up_forwards(self) -> int:
        """See the class."""
        return self._forwards.warm_up_rows

    @property
    def busy(self) -> bool:
        """Something is left to do."""
        return bool(len(self._scheduler) or self._decoding or self._failed)

    @property
    def waiting(self) -> bool:
        """There is nothing to do before gradients come: `step` would wait for them."""
        if self._decoding or self._failed or not self._gradients.outstanding:
            return False
        return all(cohort.waits for cohort in self._scheduler)

    def submit(self, job: str, orders: Sequence[Order], *, priority: float | None = None) -> int:
        """Queue orders of a job; they join at the next step.

        Args:
            job: whose they are; jobs share the device fairly, see `sitsearch.workers.engine.scheduler`.
            orders: what to make.
            priority: the job's share in relation to other jobs', see `Scheduler.submit`.

        Returns:
            The ticket under which `step` reports them done, all at once.

        Raises:
            ValueError: there are no orders, a condition is not one of the model's, a sampler is unknown, the priority
                is out of range, references are too few, or nobody here makes the gradients that are to guide.
        """
        if not orders:
            raise ValueError("a submission needs at least one order")
        if self._gradients.source is None and any(order.recipe.follows_gradients for order in orders):
            raise ValueError("an order is guided by a verifier's gradient, and nobody here makes any")
        self.generator.rows(list(dict.fromkeys(order.condition for order in orders)))
        alike: dict[object, list[int]] = {}
        for index, order in enumerate(orders):
            alike.setdefault(outline(order), []).append(index)
        ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
        cohorts: dict[Cohort, None] = {}
        for indices in alike.values():
            size = max(1, self.batch // COHORTS // orders[indices[0]].sampler.rows)
            for first in range(0, len(indices), size):
                part = indices[first : first + size]
                cohorts[self._cohort(job, ticket, part, [orders[i] for i in part])] = None
        work = sum(len(indices) * planned_rows(orders[indices[0]]) for indices in alike.values())
        tables = tables_of(job, orders, self.latents)
        submission = Submission(job, work, priority, cohorts, [None] * len(orders), tables)
        self._make_again(ticket, submission, tables.values())
        self._submissions[ticket] = submission
        return ticket

    def lend(self, job: str, order: Order, states: Sequence[torch.Tensor | None]) -> None:
        """Take what others made of a job's references, so that they are not made again.

        Args:
            job: whose they are.
            order: that is guided by them.
            states: of its references, in order; `[C, H, W]` float32, or None where nobody has it.
        """
        for reference, state in zip(order.references, states, strict=True):
            key = keys(job, order.condition, order.sampler, reference.recipe)[-1]
            if state is not None and self.latents.get(key) is None:
                self.latents.put(key, Node(state.to(self.generator.device)))

    def _make_again(self, ticket: int, submission: Submission, tables: Iterable[Table]) -> None:
        """Order what tables miss for a submission; if they miss nothing any more, its cohorts may begin."""
        for table in tables:
            if missing := table.missing:
                before = self.submit(submission.job, missing, priority=submission.priority)
                submission.before[before] = table
                self._before[before] = ticket
        if submission.before:
            return
        for cohort in submission.cohorts:
            cohort.take_references(submission.tables)
        cohorts = tuple(submission.cohorts)
        self._scheduler.submit(submission.job, cohorts, work=submission.work, priority=submission.priority)

    @torch.inference_mode()  # as `step` does: a network is compiled anew for tensors made outside of it
    def measure(self) -> float:
        """Warm up, choose `fill`, and measure network rows a second of forwards so filled.

        Counts as no evaluation of anyone's.
        """
        self._forwards.warm_up()
        self.generator.decoder.decode(torch.zeros(1, *self.generator.shape, device=self.generator.device))
        keep_what_is_made()
        rate = cache(self._forwards.rows_per_second)
        self.fill = filling(self.batch, rate)
        return rate(self.fill)

    def cancel(self, ticket: int) -> None:
        """Drop a submission, begun or not; nothing happens when it is unknown or done."""
        submission = self._submissions.pop(ticket, None)
        self._before.pop(ticket, None)
        if submission is None:
            return
        for before in submission.before:
            self.cancel(before)
        for cohort in submission.cohorts:
            if cohort in self._scheduler:
                self._retire(cohort)

    @torch.inference_mode()
    def step(self) -> list[Done]:
        """One forward for as many trajectories as fit; returns the submissions that ended.

        What needs gradients waits for them while others go on; where there are no others, so does the engine.
        """
        self._steer()
        cohorts = self._scheduler.pick(self._admit)
        for cohort in [c for c in cohorts if not c.begun]:
            if cohort.ticket in self._submissions:
                cohorts += self._begin(cohort)
        running = [c for c in cohorts if c.ticket in self._submissions and not (c.done or c.waits)]
        if running:
            self._run(running)
        moved = [c for c in cohorts if c.ticket in self._submissions]
        for cohort in moved:
            if cohort.done:
                self._finish(cohort)
        self._gradients.ask([cohort for cohort in moved if cohort.waits])
        return self._collect(wait=not running and not self._gradients.asked)

    @property
    def guides(self) -> Source | None:
        """Where gradients of verifiers come from; see the class."""
        return self._gradients.source

    @guides.setter
    def guides(self, source: Source | None) -> None:
        self._gradients.source = source

    # --- schedule ------------------------------------------------------------------------------------------------

    def _cohort(self, job: str, ticket: int, indices: Sequence[int], orders: Sequence[Order]) -> Cohort:
        return Cohort(
            job=job,
            ticket=ticket,
            indices=indices,
            orders=orders,
            generator=self.generator,
            latents=self.latents,
        )

    def _admit(self, cohort: Cohort) -> bool:
        """Whether the states of a cohort fit besides those under way; if so, their memory is its own."""
        if self.live and self.live + cohort.nbytes > self._live_bytes:
            return False
        self._hold(cohort)
        return True

    def _hold(self, cohort: Cohort) -> None:
        """Count the memory of a cohort's states, which may have changed."""
        self.live += cohort.nbytes - self._held.get(cohort, 0)
        self._held[cohort] = cohort.nbytes

    def _begin(self, cohort: Cohort) -> list[Cohort]:
        """Make the states of a cohort; others may part from it, which have begun too."""
        try:
            parted = cohort.begin()
        except Exception as error:
            self._fail(cohort.ticket, error)
            return []
        self._hold(cohort)
        for other in parted:
            self._hold(other)
            self._submissions[cohort.ticket].cohorts[other] = None
            self._scheduler.join(other)
        return parted

    def _retire(self, cohort: Cohort) -> None:
        """A cohort needs no more forwards."""
        self._scheduler.remove(cohort)
        self._release(cohort)

    def _release(self, cohort: Cohort) -> None:
        self.live -= self._held.pop(cohort, 0)

    def _fail(self, ticket: int, error: Exception) -> None:
        """A submission ends with its first error, and what waits for it; others go on."""
        ticket = self._before.get(ticket, ticket)
        if ticket not in self._submissions:
            return
        if not isinstance(error, ValueError):  # not the recipe's fault, so somebody should look
            log.error("a submission failed", exc_info=error)
        self.cancel(ticket)
        self._failed.append(Done(ticket, (), error))

    # --- run -----------------------------------------------------------------------------------------------------

    def _run(self, cohorts: list[Cohort]) -> None:
        """Evaluate the field of every cohort in one forward."""
        queries = [cohort.query() for cohort in cohorts]
        counts = [len(x) for x, _, _ in queries]
        used = sum(counts)
        x, t = torch.cat([q[0] for q in queries]), torch.cat([q[1] for q in queries])
        rows = tuple(torch.cat(parts) for parts in zip(*(q[2] for q in queries), strict=True))
        outputs = self._forwards.evaluate(x, t, rows).split(counts)
        self._wait_for_room()
        self.steps += 1
        self.forwards += used
        for cohort, output in zip(cohorts, outputs, strict=True):
            self.nfe += cohort.evaluations
            if cohort.ticket not in self._submissions:
                continue  # another cohort of it has failed just now
            try:
                cohort.take(output)
            except Exception as error:
                self._fail(cohort.ticket, error)

    def _steer(self) -> None:
        """Let the cohorts whose gradients came go on."""
        for cohort, gradients in self._gradients.came(wait_for_one=self.waiting):
            if cohort.ticket not in self._submissions:
                continue  # cancelled, or failed, meanwhile
            try:
                cohort.steer(gradients.result())
            except Exception as error:
                self._fail(cohort.ticket, error)
                continue
            if cohort.done:
                self._finish(cohort)

    def _wait_for_room(self) -> None:
        """On CUDA, let Python run no further ahead than `QUEUED` forwards: what comes now is to join soon."""
        if self._on_cuda:
            event = torch.cuda.Event()
            event.record()
            self._queued.append(event)
            if len(self._queued) > QUEUED:
                self._queued.popleft().synchronize()

    # --- postprocess ---------------------------------------------------------------------------------------------

    def _finish(self, cohort: Cohort) -> None:
        """Have a cohort decoded."""
        self._scheduler.remove(cohort)
        self._decoding.add(cohort)

    def _collect(self, *, wait: bool) -> list[Done]:
        """The submissions that ended; with `wait`, not before the next one is decoded, if one is being."""
        ended = []
        for cohort, made in self._decoding.ended(wait=wait):
            self._release(cohort)
            if (submission := self._submissions.get(cohort.ticket)) is None:
                continue  # cancelled meanwhile
            if isinstance(error := made.exception(), Exception):
                self._fail(cohort.ticket, error)
                continue
            submission.put(cohort, made.result())
            if not submission.cohorts:
                del self._submissions[cohort.ticket]
                ended += self._handed_on(Done(cohort.ticket, submission.made))
        failed, self._failed = self._failed, []
        return failed + ended

    def _handed_on(self, done: Done) -> list[Done]:
        """What ended, unless another submission waited for it."""
        if done.ticket not in self._before:
            return [done]
        ticket = self._before.pop(done.ticket)
        submission = self._submissions[ticket]
        self._make_again(ticket, submission, [submission.put_before(done.ticket, done.made)])
        return []
