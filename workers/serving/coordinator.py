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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.handle import DeploymentHandle

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, StoreUnavailable
from sitsearch.workers.jobs.images import decode_png, encode_png
from sitsearch.workers.jobs.job import Candidate, Job, JobError, Result, Status, Usage
from sitsearch.workers.jobs.offer import ModelOffer, Offer, SamplerOffer, VerifierOffer
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.local import orders_of
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import algorithm_offers
from sitsearch.workers.search.runs.start import Run, start_run
from sitsearch.workers.serving.affinity import Slots, key_of
from sitsearch.workers.serving.sampler import Samples
from sitsearch.workers.settings import Settings

log = logging.getLogger(__name__)

ATTEMPTS = 5
#: To Redis, which one coordinator's jobs share: each call is short.
CONNECTIONS = 32
#: A job that was claimed more often than this has ended its coordinators, and ends itself.
MAX_CLAIMS = 10
RENEWALS_PER_LEASE = 3
#: A round makes thousands of short-lived objects, and thousands of jobs hold millions of long-lived ones: at Python's
#: own thresholds the collector takes a fifth of the processor to find next to nothing.
GARBAGE = (50_000, 20, 100)

T = TypeVar("T")


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
        while True:
            try:
                await action()
                await asyncio.sleep(pause)
            except (StoreUnavailable, RayError) as error:
                log.warning("%s failed, trying again: %s", action.__name__, error)
                await asyncio.sleep(1)

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
            )
        await self.store.publish_offer(self.offer)
        await self.store.publish_worker_metrics(self.name, self.counters | {"jobs_running": len(self._held)})
        for model in self.offer.models:
            warm_up = {"warm_up_seconds": model.warm_up_seconds, "warm_up_forwards": model.warm_up_forwards}
            figures = {name: value for name, value in warm_up.items() if value is not None}
            await self.store.publish_worker_metrics(f"sampler-{model.name}", figures)

    async def _describe(self, pools: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(await _all([handle.describe.remote() for handle in pools.values()]))

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
            result, usage = await self._search(claim)
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
        self.counters["jobs_total"] += 1

    async def _search(self, claim: Claim) -> tuple[Result, Usage]:
        job = claim.job
        run = start_run(job.request, self._method(job))
        run.replay(await self.store.rounds(job.id), job.extensions)
        work = _Work(job, self._conditions(job), _Wasted(job), Slots(self.settings.slots))
        if run.rounds and job.request.condition.classes:
            await self._features_again(work, run)
        retaken = claim.taken_over
        deadline = None
        if job.request.budget.seconds is not None:
            deadline = (job.started_at or time.time()) + job.request.budget.seconds
        while proposals := run.ask(out_of_time=deadline is not None and time.time() >= deadline):
            if retaken:  # the round that the lost coordinator had under way is evaluated again
                work.wasted.add_all(proposals)
                retaken = False
            candidates, images = await self._evaluate(work, proposals, run.phase)
            run.tell(candidates)
            work.choose(run.best[-1].id)
            if run.to_audit is not None:
                made = {c.id: image for c, image in zip(candidates, images, strict=True)}
                run.audit(await self._audit(work, run.to_audit, made))
            keep = [candidate.id for candidate in run.kept]
            fresh = {c.id: encode_png(image, c) for c, image in zip(candidates, images, strict=True) if c.id in keep}
            await self.store.append_round(
                claim, run.log(), progress=run.progress, usage=work.wasted.added_to(run.usage), images=fresh, keep=keep
            )
            for name, spent in (
                ("nfe_total", sum(c.nfe for c in candidates)),
                ("forwards_total", sum(c.forwards for c in candidates)),
                ("candidates_total", len(candidates)),
                ("rounds_total", 1),
            ):
                self.counters[name] += spent
        return run.result(), work.wasted.added_to(run.usage)

    async def _evaluate(
        self, work: _Work, proposals: Sequence[Proposal], phase: Any
    ) -> tuple[list[Candidate], np.ndarray]:
        """Sample and score proposals."""
        job, names = work.job, work.job.request.verifier.names
        samples = await self._persist(
            job, lambda: self._sample(work, proposals), lambda: work.wasted.add_all(proposals)
        )
        work.wasted.add(samples.nfe_again, samples.forwards_again)
        conditions = [work.conditions[p.condition] for p in proposals]
        if job.request.condition.classes and self._verifier(names[0]).sets:
            scores = [{names[0]: s} for s in await self._set_scores(work, [p.id for p in proposals], samples.images)]
        else:
            scores = await self._scores(job, names, samples.images, conditions, samples.previews)
        candidates = [
            Candidate(id=p.id, recipe=p.recipe, nfe=n, forwards=f, scores=row, phase=phase, condition=p.condition)
            for p, n, f, row in zip(proposals, samples.nfe, samples.forwards, scores, strict=True)
        ]
        return candidates, samples.images

    async def _scores(
        self,
        job: Job,
        names: Sequence[str],
        images: np.ndarray,
        conditions: Sequence[Condition],
        previews: np.ndarray | None = None,
    ) -> list[dict[str, float]]:
        """Scores of images by several verifiers, which work at the same time."""
        shown = {name: previews if "preview" in self._verifier(name).needs else None for name in names}
        columns = await self._persist(
            job,
            lambda: _all([self.verifiers[name].score.remote(images, conditions, shown[name]) for name in names]),
            _nothing,
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    async def _audit(self, work: _Work, winner: Candidate, fresh: dict[str, np.ndarray]) -> dict[str, float]:
        """What the request's auditors say of the best candidate so far."""
        image = fresh.get(winner.id)
        if image is None:  # of an earlier round: an ensemble changes its mind
            png = await self.store.image(work.job.id, winner.id)
            if png is None:
                raise SearchError(f"the image of {winner.id!r} has expired and cannot be audited")
            image = decode_png(png)
        conditions = [work.conditions[winner.condition]]
        return (await self._scores(work.job, work.job.request.auditors, image[None], conditions))[0]

    async def _set_scores(self, work: _Work, ids: Sequence[str], images: np.ndarray) -> list[float]:
        """Scores of the set so far with each image added alone."""
        call = self.verifiers[work.job.request.verifier.name].set_scores
        answer = await self._persist(work.job, lambda: _all([call.remote(images, work.chosen)]), _nothing)
        scores, features = answer[0]
        work.features = dict(zip(ids, features, strict=True))
        return list(scores)

    async def _features_again(self, work: _Work, run: Run) -> None:
        """What a lost coordinator knew of the set so far: the features of the images that were kept."""
        if not self._verifier(work.job.request.verifier.name).sets:
            return
        kept = await self.store.images(work.job.id)
        for candidate in run.best:
            if candidate.id not in kept:
                raise SearchError(f"the image of {candidate.id!r} has expired, and with it the set so far")
            await self._set_scores(work, [candidate.id], decode_png(kept[candidate.id])[None])
            work.choose(candidate.id)

    async def _persist(self, job: Job, call: Callable[[], Awaitable[T]], lost: Callable[[], None]) -> T:
        """Call again when a replica dies under it, since a recipe gives the same image and an image the same score."""
        for attempt in range(ATTEMPTS):
            try:
                return await call()
            except RayActorError as error:
                if attempt == ATTEMPTS - 1:
                    raise
                log.warning("a replica died under job %s: %s", job.id, error)
                lost()
                await asyncio.sleep(2**attempt / 4)
        raise AssertionError("unreachable")

    async def _sample(self, work: _Work, proposals: Sequence[Proposal]) -> Samples:
        """The proposals' images, made by all replicas of the job's model together."""
        job = work.job
        preview = any("preview" in self._verifier(name).needs for name in job.request.verifier.names)
        orders = orders_of(proposals, job.request.sampler, work.conditions, preview=preview)
        sampler, slots = self.samplers[job.request.model], work.slots.assign(orders)
        parts = await _all(
            [
                sampler.options(multiplexed_model_id=key_of(job.id, slot)).sample.remote(
                    job.id, [orders[place] for place in places], job.request.priority
                )
                for slot, places in slots.items()
            ]
        )
        order = np.argsort([place for places in slots.values() for place in places])
        nfe = [count for part in parts for count in part.nfe]
        forwards = [count for part in parts for count in part.forwards]
        return Samples(
            images=np.concatenate([part.images for part in parts])[order],
            nfe=[nfe[i] for i in order],
            forwards=[forwards[i] for i in order],
            nfe_again=sum(part.nfe_again for part in parts),
            forwards_again=sum(part.forwards_again for part in parts),
            previews=np.concatenate([part.previews for part in parts if part.previews is not None])[order]
            if preview
            else None,
        )

    def _model(self, job: Job) -> ModelOffer:
        assert self.offer is not None
        return next(m for m in self.offer.models if m.name == job.request.model)

    def _method(self, job: Job) -> SamplerOffer:
        return next(s for s in self._model(job).samplers if s.name == job.request.sampler.method)

    def _verifier(self, name: str) -> VerifierOffer:
        assert self.offer is not None
        return next(v for v in self.offer.verifiers if v.name == name)

    def _conditions(self, job: Job) -> list[Condition]:
        """What the job asks for; a class has the text that the model's card makes of its name."""
        prompt, model = job.request.condition.prompt, self._model(job)
        if not job.class_indices:
            return [Condition(prompt=prompt)]
        template = model.template or "{}"
        return [Condition(index, prompt or template.format(model.classes[index])) for index in job.class_indices]


class _Work:
    """A job under way: what it asks for, what it wasted, where its states are, and the set so far if it makes one."""

    def __init__(self, job: Job, conditions: Sequence[Condition], wasted: _Wasted, slots: Slots) -> None:
        self.job, self.conditions, self.wasted, self.slots = job, conditions, wasted, slots
        self.chosen: np.ndarray | None = None
        self.features: dict[str, np.ndarray] = {}

    def choose(self, taken: str) -> None:
        """Candidate `taken` of the last scoring joins the set."""
        if (feature := self.features.pop(taken, None)) is not None:
            self.chosen = feature[None] if self.chosen is None else np.concatenate([self.chosen, feature[None]])


class _Wasted:
    """What was evaluated again after faults: an upper bound, as a dead replica cannot say how far it came."""

    def __init__(self, job: Job) -> None:
        self.nfe, self.forwards = job.usage.nfe_wasted, job.usage.forwards_wasted
        self._rows = job.request.sampler.rows

    def add(self, nfe: int, forwards: int) -> None:
        self.nfe += nfe
        self.forwards += forwards

    def add_all(self, proposals: Sequence[Proposal]) -> None:
        nfe = sum(proposal.nfe for proposal in proposals)
        self.add(nfe, nfe * self._rows)

    def added_to(self, usage: Usage) -> Usage:
        return usage.model_copy(update={"nfe_wasted": self.nfe, "forwards_wasted": self.forwards})


async def _all(responses: Sequence[Any]) -> list[Any]:
    """Await Serve responses together; when the caller is cancelled or one fails, the others are cancelled too."""
    try:
        return list(await asyncio.gather(*responses))
    except BaseException:
        for response in responses:
            response.cancel()
        raise


def _say_why(claim: Claim, error: JobCanceled | LeaseLost | StoreUnavailable) -> None:
    """A line in the log: why a job is no longer worked on."""
    if isinstance(error, JobCanceled):
        log.info("job %s was canceled", claim.job.id)
    elif isinstance(error, LeaseLost):
        log.warning("job %s was taken over by another coordinator", claim.job.id)
    else:
        log.warning("job %s is left to its lease: %s", claim.job.id, error)


def _nothing() -> None:
    pass
