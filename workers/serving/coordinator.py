"""The coordinator: claims jobs, runs their searches over the sampler and verifier pools, and logs every round.

The round log in Redis is the truth and this process a cache of it: when it dies, another claims the job once the lease
has run out, replays the log, asks again, gets the very same proposals, and goes on.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.errors import UnknownName, VerifierInvalid
from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, RoundOutOfOrder, StoreUnavailable, UnreadableRecord
from sitsearch.workers.jobs.job import Candidate, JobError, Result, Status, Usage
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.jobs.store.heartbeat import Heartbeat
from sitsearch.workers.search.lessons.record import fields_of
from sitsearch.workers.serving.offering import Offering
from sitsearch.workers.serving.patience import patiently
from sitsearch.workers.serving.persistence import PoisonedOrder
from sitsearch.workers.serving.work import Drained, Pools, Work
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

#: To Redis, which one coordinator's jobs share: each call is short.
CONNECTIONS = 32
#: A job that was claimed more often than this without a round to show for it has ended its coordinators, and ends.
MAX_CLAIMS = 10
#: What is offered is said so often before it would be believed no more.
SAID_PER_TTL = 3
#: Seconds before a loop that failed goes on, which double, and the most that they come to.
PAUSE, MOST_PAUSE = 1.0, 15.0
#: How often the log of a job is read again that the store has lost rounds of.
REPLAYS = 5
#: How often a job is handed back whose model or verifiers are not served here, and seconds before it is claimed again.
RETURNS, RETURN_PAUSE = 3, 5.0
#: Seconds that rounds under way have to end in when the coordinator is to stop.
DRAIN = 30.0
#: Codes of jobs that failed, by what was raised.
CODES = {
    VerifierUnavailable: "verifier-unavailable",
    VerifierInvalid: "verifier-invalid",
    PoisonedOrder: "poisoned-order",
    UnreadableRecord: "unreadable-record",
}
#: A round makes thousands of short-lived objects, and thousands of jobs hold millions of long-lived ones: at Python's
#: own thresholds the collector takes a fifth of the processor to find next to nothing.
GARBAGE = (50_000, 20, 100)


@dataclass
class Held:
    """A job that is worked on.

    Attributes:
        claim: the hold on it.
        work: the work, once it has begun.
        refusal: why it is worked on no more.
    """

    claim: Claim
    work: Work | None = None
    refusal: JobCanceled | LeaseLost | None = None


class Coordinator:
    """Runs up to `jobs_per_coordinator` jobs at once.

    Args:
        settings: the deployment's settings, as `Settings.model_dump` gives them; `redis_url` must be set.
        samplers: handle of the sampler deployment by model name.
        verifiers: handle of the verifier deployment by verifier name.
    """

    def __init__(
        self, settings: dict[str, Any], samplers: dict[str, DeploymentHandle], verifiers: dict[str, DeploymentHandle]
    ) -> None:
        self.settings = Settings(**settings)
        if self.settings.redis_url is None:
            raise ValueError("a coordinator needs SITSEARCH_REDIS_URL")
        self.name = f"{socket.gethostname()}-{os.getpid()}"
        gc.set_threshold(*GARBAGE)
        self.store = JobStore.from_url(self.settings.redis_url, self.settings, connections=CONNECTIONS)
        self.samplers, self.verifiers = samplers, verifiers
        self.offering = Offering(self.settings, samplers, verifiers)
        self.counters = {"nfe_total": 0, "forwards_total": 0, "candidates_total": 0, "rounds_total": 0, "jobs_total": 0}
        self._held: dict[asyncio.Task[None], Held] = {}
        self._returned: dict[str, tuple[int, float]] = {}  # jobs that were handed back: how often, and until when
        self._heard = "0"  # the last cancellation
        self._suspects = asyncio.Lock()
        self._room = asyncio.Semaphore(self.settings.jobs_per_coordinator)
        self._draining = self._checked = False
        loop = asyncio.get_event_loop()
        self._beat = Heartbeat(
            self.settings.redis_url,
            self.settings,
            lambda claim, refusal: loop.call_soon_threadsafe(self._refuse, claim, refusal),
        )
        self._loops = [
            loop.create_task(self._forever(self._publish, self.settings.offer_ttl / SAID_PER_TTL)),
            loop.create_task(self._forever(self._claim_one, 0)),
            loop.create_task(self._forever(self._heed_cancellations, 0)),
        ]

    def pid(self) -> int:
        """The process that coordinates, for tests that kill it."""
        return os.getpid()

    def check_health(self) -> None:
        """Called by Serve; a coordinator whose loops ended is replaced."""
        for task in self._loops:
            if task.done():
                raise RuntimeError(f"the coordinator's loop has ended: {task}")
        if not self._beat.alive:
            raise RuntimeError("the coordinator's thread that renews leases has ended")

    def __del__(self) -> Any:
        """Called by Serve before the process ends: the jobs are given back, see `drain`."""
        if self._draining:
            return None
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return None
        return self.drain()

    async def drain(self) -> None:
        """Claim no more, and give every job back once its round under way is logged, or after `DRAIN` seconds."""
        self._draining = True
        for held in self._held.values():
            if held.work is not None:
                held.work.drain()
        if self._held:
            await asyncio.wait(list(self._held), timeout=DRAIN)
        for task, held in list(self._held.items()):
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._give_back(held.claim)

    def stop(self) -> list[asyncio.Task[None]]:
        """End all at once, as if the process ended; what is to be awaited."""
        self._draining = True
        self._beat.stop()
        tasks = [*self._loops, *self._held]
        for task in tasks:
            task.cancel()
        return tasks

    async def _forever(self, action: Callable[[], Awaitable[None]], pause: float) -> None:
        """Repeat `action`, outliving whatever it raises: an absent Redis, pools that are still starting, and faults."""
        wait = PAUSE
        while True:
            try:
                await action()
                wait = PAUSE
                await asyncio.sleep(pause)
            except Exception as error:
                known = isinstance(error, StoreUnavailable | RayError | RayServeException)
                log.warning("%s failed, trying again: %s", action.__name__, error, exc_info=not known)
                await asyncio.sleep(wait)
                wait = min(2 * wait, MOST_PAUSE)

    async def _publish(self) -> None:
        """Tell the gateway what is offered here, and what was done so far."""
        if not self._checked:  # before the first job: once thousands of them take turns, to connect takes too long
            await asyncio.gather(*(self.store.ping() for _ in range(CONNECTIONS)))
            await self.store.check()
            self._checked = True
        offer = await self.offering.look()
        if offer is not None:
            await self.store.publish_offer(offer)
        await self.store.publish_worker_metrics(self.name, self.counters | {"jobs_running": len(self._held)})
        for model in offer.models if offer is not None else ():
            warm_up = {"warm_up_seconds": model.warm_up_seconds, "warm_up_forwards": model.warm_up_forwards}
            figures = {name: value for name, value in warm_up.items() if value is not None}
            await self.store.publish_worker_metrics(f"sampler-{model.name}", figures)

    async def _claim_one(self) -> None:
        """Wait for room and for a job, and start it."""
        if self.offering.offer is None or self._draining:
            await asyncio.sleep(0.1)
            return
        await self._room.acquire()
        claim = None
        try:
            now = time.monotonic()
            returned = [job for job, (_, until) in self._returned.items() if until > now]
            held = [held.claim.job.id for held in self._held.values()]
            claim = await self.store.claim(self.name, held=[*held, *returned])
        finally:
            if claim is None:
                self._room.release()
        if claim is not None:
            held_now = Held(claim)
            task = asyncio.create_task(self._hold(held_now))
            self._held[task] = held_now
            task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self._room.release()

    def _refuse(self, claim: Claim, refusal: JobCanceled | LeaseLost) -> None:
        """Drop a job whose claim no longer holds: it was canceled, or taken over."""
        for task, held in self._held.items():
            if held.claim is claim and held.refusal is None:
                held.refusal = refusal
                task.cancel()

    async def _heed_cancellations(self) -> None:
        """Drop canceled jobs at once; what is missed here is found by the heartbeat."""
        self._heard, jobs = await self.store.cancellations(self._heard)
        for claim in [held.claim for held in self._held.values() if held.claim.job.id in jobs]:
            self._refuse(claim, JobCanceled(claim.job.id))

    async def _hold(self, held: Held) -> None:
        """Run a claimed job to its end or to the loss of its lease."""
        claim = held.claim
        self._beat.hold(claim)
        try:
            await self._work(held)
        except (JobCanceled, LeaseLost) as error:
            held.refusal = JobCanceled(claim.job.id) if isinstance(error, JobCanceled) else LeaseLost(claim.job.id)
        except asyncio.CancelledError:
            if held.refusal is None:
                raise
        except Drained:
            await self._give_back(claim)
        finally:
            self._beat.let_go(claim)
        if held.refusal is not None:
            await self._let_be(held, held.refusal)

    async def _let_be(self, held: Held, refusal: JobCanceled | LeaseLost) -> None:
        """A job is worked on no more; one that was canceled has what was found by then."""
        if isinstance(refusal, LeaseLost):
            log.warning("job %s was taken over by another coordinator", held.claim.job.id)
            return
        log.info("job %s was canceled", held.claim.job.id)
        result, usage = held.work.so_far("canceled") if held.work is not None else (None, None)
        if result is not None and usage is not None:
            try:
                await self.store.leave(held.claim, result, usage)
            except StoreUnavailable as error:
                log.warning("what the canceled job %s had found is lost: %s", held.claim.job.id, error)

    async def _give_back(self, claim: Claim) -> None:
        try:
            await self.store.release(claim)
        except (JobCanceled, LeaseLost, StoreUnavailable) as error:
            log.info("job %s is not given back: %s", claim.job.id, error)

    async def _work(self, held: Held) -> None:
        """Search, and make the job terminal; a fault of the job's own makes it failed, with a reason."""
        claim = held.claim
        if claim.attempts > MAX_CLAIMS:
            detail = f"{MAX_CLAIMS} coordinators ended while they ran this job"
            await self._end(
                claim, Status.FAILED, claim.job.usage, error=JobError(code="claimed-too-often", detail=detail)
            )
            return
        try:
            result, usage = await self._searched(held)
        except (JobCanceled, LeaseLost, Drained):
            raise
        except UnknownName as error:
            if not await self._handed_back(claim, error):
                await self._fail(held, error)
        except Exception as error:
            log.exception("job %s failed", claim.job.id)
            await self._fail(held, error)
        else:
            await self._end(claim, Status.SUCCEEDED, usage, result=result)
            await self._teach(held)
        self.counters["jobs_total"] += 1

    async def _searched(self, held: Held) -> tuple[Result, Usage]:
        """The search, from where its log ends; begun again from the log when the store has lost the end of it."""
        replays = 0
        while True:
            held.work = self._start(held.claim)
            if self._draining:
                held.work.drain()
            try:
                return await held.work.search()
            except RoundOutOfOrder as error:
                replays += 1
                if replays > REPLAYS:
                    raise
                log.warning("job %s goes on from what the store still has: %s", held.claim.job.id, error)
            except StoreUnavailable as error:  # as often as it takes: the lease says for how long the job is ours
                log.warning("job %s cannot read its log yet: %s", held.claim.job.id, error)
                await patiently(self.store.ping, f"job {held.claim.job.id}")

    async def _handed_back(self, claim: Claim, error: UnknownName) -> bool:
        """Whether a job whose model or verifiers are not served here, or not yet, was left to other coordinators."""
        count, _ = self._returned.get(claim.job.id, (0, 0.0))
        if count >= RETURNS:
            del self._returned[claim.job.id]
            return False
        log.warning("job %s is handed back: %s", claim.job.id, error)
        self._returned[claim.job.id] = count + 1, time.monotonic() + RETURN_PAUSE
        await self._give_back(claim)
        return True

    async def _fail(self, held: Held, error: Exception) -> None:
        """Make the job failed; what was found by then is its result."""
        cause = error.cause if isinstance(error, RayTaskError) else error
        code = next((code for kind, code in CODES.items() if isinstance(cause, kind)), "search-failed")
        reason = JobError(code=code, detail=f"{type(cause).__name__}: {cause}"[:500])
        result, usage = (None, held.claim.job.usage) if held.work is None else held.work.so_far("failed")
        await self._end(held.claim, Status.FAILED, usage, result=result, error=reason)

    async def _end(
        self,
        claim: Claim,
        status: Literal[Status.SUCCEEDED, Status.FAILED],
        usage: Usage,
        *,
        result: Result | None = None,
        error: JobError | None = None,
    ) -> None:
        await patiently(
            lambda: self.store.finish(claim, status=status, result=result, error=error, usage=usage),
            f"job {claim.job.id}",
        )

    async def _teach(self, held: Held) -> None:
        """Let a job that has succeeded teach others; it has succeeded all the same if it cannot."""
        try:
            if held.work is not None and (lesson := held.work.lesson()) is not None:
                await self.store.teach(held.claim.job.id, lesson.model, lesson.verifier, fields_of(lesson.sums()))
        except Exception as error:
            log.warning("job %s has taught nothing: %s", held.claim.job.id, error)

    def _start(self, claim: Claim) -> Work:
        assert self.offering.offer is not None
        settings = self.settings
        pools = Pools(
            self.samplers,
            self.verifiers,
            self.offering.offer,
            settings.slots,
            self._suspects,
            settings.verifier_patience,
        )
        return Work(claim, pools, self.store, self._count)

    def _count(self, candidates: Sequence[Candidate]) -> None:
        """Count a round that was logged."""
        for name, spent in (
            ("nfe_total", sum(c.nfe for c in candidates)),
            ("forwards_total", sum(c.forwards for c in candidates)),
            ("candidates_total", len(candidates)),
            ("rounds_total", 1),
        ):
            self.counters[name] += spent
