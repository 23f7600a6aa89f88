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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_fixed

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, StoreUnavailable
from sitsearch.workers.jobs.job import Candidate, JobError, Status
from sitsearch.workers.jobs.offer import Offer
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.search.lessons.record import fields_of
from sitsearch.workers.search.registry import algorithm_offers
from sitsearch.workers.serving.work import Pools, Work, together
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

#: To Redis, which one coordinator's jobs share: each call is short.
CONNECTIONS = 32
#: A job that was claimed more often than this has ended its coordinators, and ends itself.
MAX_CLAIMS = 10
RENEWALS_PER_LEASE = 3
#: Seconds before a loop that Redis or a pool failed goes on.
PAUSE = 1.0
#: A round makes thousands of short-lived objects, and thousands of jobs hold millions of long-lived ones: at Python's
#: own thresholds the collector takes a fifth of the processor to find next to nothing.
GARBAGE = (50_000, 20, 100)


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
        self.offer: Offer | None = None
        self.counters = {"nfe_total": 0, "forwards_total": 0, "candidates_total": 0, "rounds_total": 0, "jobs_total": 0}
        self._held: dict[asyncio.Task[None], Claim] = {}
        self._heard = "0"  # the last cancellation
        self._room = asyncio.Semaphore(self.settings.jobs_per_coordinator)
        loop = asyncio.get_event_loop()
        self._loops = [
            loop.create_task(self._forever(self._publish, self.settings.offer_ttl / RENEWALS_PER_LEASE)),
            loop.create_task(self._forever(self._claim_one, 0)),
            loop.create_task(self._forever(self._heed_cancellations, 0)),
            loop.create_task(self._forever(self._renew, self.settings.lease / RENEWALS_PER_LEASE)),
        ]

    def pid(self) -> int:
        """The process that coordinates, for tests that kill it."""
        return os.getpid()

    def check_health(self) -> None:
        """Called by Serve; a coordinator whose loops ended is replaced."""
        for task in self._loops:
            if task.done():
                raise RuntimeError(f"the coordinator's loop has ended: {task}")

    async def _forever(self, action: Callable[[], Awaitable[None]], pause: float) -> None:
        """Repeat `action`, outliving an absent Redis and pools that are still starting."""

        def failed(state: RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            log.warning("%s failed, trying again: %s", action.__name__, error)

        async def repeat() -> None:
            while True:
                await action()
                await asyncio.sleep(pause)

        await AsyncRetrying(
            retry=retry_if_exception_type((StoreUnavailable, RayError)), wait=wait_fixed(PAUSE), before_sleep=failed
        )(repeat)

    async def _publish(self) -> None:
        """Tell the gateway what is offered here, and what was done so far."""
        if self.offer is None:  # before the first job: once thousands of them take turns, to connect takes too long
            await asyncio.gather(*(self.store.ping() for _ in range(CONNECTIONS)))
        described = asyncio.gather(self._describe(self.samplers), self._describe(self.verifiers))
        try:
            # Replicas at work answer late: what they said before holds meanwhile.
            patience = None if self.offer is None else self.settings.offer_ttl / 4
            models, verifiers = await asyncio.wait_for(described, patience)
        except TimeoutError:
            assert self.offer is not None
        else:
            self.offer = Offer(
                models=models,
                verifiers=verifiers,
                algorithms=algorithm_offers(),
                deterministic=self.settings.deterministic,
                auditors=tuple(name for name in self.settings.auditors if name in self.verifiers),
            )
        await self.store.publish_offer(self.offer)
        await self.store.publish_worker_metrics(self.name, self.counters | {"jobs_running": len(self._held)})
        for model in self.offer.models:
            warm_up = {"warm_up_seconds": model.warm_up_seconds, "warm_up_forwards": model.warm_up_forwards}
            figures = {name: value for name, value in warm_up.items() if value is not None}
            await self.store.publish_worker_metrics(f"sampler-{model.name}", figures)

    async def _describe(self, pools: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(await together([handle.describe.remote() for handle in pools.values()]))

    async def _claim_one(self) -> None:
        """Wait for room and for a job, and start it."""
        if self.offer is None:
            await asyncio.sleep(0.1)
            return
        await self._room.acquire()
        claim = None
        try:
            claim = await self.store.claim(self.name)
        finally:
            if claim is None:
                self._room.release()
        if claim is not None:
            task = asyncio.create_task(self._hold(claim))
            self._held[task] = claim
            task.add_done_callback(self._let_go)

    def _let_go(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self._room.release()

    async def _renew(self) -> None:
        """Keep the leases of all jobs, and drop the jobs whose lease is gone: they were canceled or taken over."""
        held = list(self._held.items())
        refusals = await self.store.renew([claim for _, claim in held])
        for (task, claim), refusal in zip(held, refusals, strict=True):
            if refusal is not None:
                _say_why(claim, refusal)
                task.cancel()

    async def _heed_cancellations(self) -> None:
        """Drop canceled jobs at once; what is missed here is found by `_renew`."""
        self._heard, jobs = await self.store.cancellations(self._heard)
        for task, claim in [held for held in self._held.items() if held[1].job.id in jobs]:
            _say_why(claim, JobCanceled(claim.job.id))
            task.cancel()

    async def _hold(self, claim: Claim) -> None:
        """Run a claimed job to its end or to the loss of its lease."""
        try:
            await self._work(claim)
        except (JobCanceled, LeaseLost, StoreUnavailable) as error:
            _say_why(claim, error)

    async def _work(self, claim: Claim) -> None:
        """Search, and make the job terminal; any fault of the job's own makes it failed with a reason."""
        if claim.fence > MAX_CLAIMS:
            reason = JobError(
                code="claimed-too-often", detail=f"{MAX_CLAIMS} coordinators ended while they ran this job"
            )
            await self.store.finish(claim, status=Status.FAILED, error=reason, usage=claim.job.usage)
            return
        try:
            work = self._start(claim)
            result, usage = await work.search()
        except (JobCanceled, LeaseLost, StoreUnavailable):
            raise
        except Exception as error:
            log.exception("job %s failed", claim.job.id)
            cause = error.cause if isinstance(error, RayTaskError) else error
            code = "verifier-unavailable" if isinstance(cause, VerifierUnavailable) else "search-failed"
            reason = JobError(code=code, detail=f"{type(cause).__name__}: {cause}"[:500])
            logged = await self.store.get(claim.job.id)
            spent = logged.usage if logged else claim.job.usage
            await self.store.finish(claim, status=Status.FAILED, error=reason, usage=spent)
        else:
            await self.store.finish(claim, status=Status.SUCCEEDED, result=result, usage=usage)
            await self._teach(claim, work)
        self.counters["jobs_total"] += 1

    async def _teach(self, claim: Claim, work: Work) -> None:
        """Let a job that has succeeded teach others; it has succeeded all the same if it cannot."""
        try:
            if (lesson := work.lesson()) is not None:
                await self.store.teach(claim.job.id, lesson.model, lesson.verifier, fields_of(lesson.sums()))
        except Exception as error:
            log.warning("job %s has taught nothing: %s", claim.job.id, error)

    def _start(self, claim: Claim) -> Work:
        assert self.offer is not None
        pools = Pools(self.samplers, self.verifiers, self.offer, self.settings.slots)
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


def _say_why(claim: Claim, error: JobCanceled | LeaseLost | StoreUnavailable) -> None:
    """A line in the log: why a job is no longer worked on."""
    if isinstance(error, JobCanceled):
        log.info("job %s was canceled", claim.job.id)
    elif isinstance(error, LeaseLost):
        log.warning("job %s was taken over by another coordinator", claim.job.id)
    else:
        log.warning("job %s is left to its lease: %s", claim.job.id, error)
