"""The queue: jobs are submitted to it, claimed from it under leases, and leave it when they end.

A lease is renewed in time by who holds it, and kept by the server's clock; a fencing token, another one for every
claim, keeps out the writes of a holder that lost it.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Collection, Sequence
from typing import Any, Literal

from sitsearch.workers.jobs.errors import (
    IdempotencyConflict,
    JobCanceled,
    JobChanged,
    LeaseLost,
    QueueFull,
    UnreadableRecord,
)
from sitsearch.workers.jobs.job import Extension, Job, JobError, Result, Status, Usage
from sitsearch.workers.jobs.store.connection import reachable
from sitsearch.workers.jobs.store.keys import IDEMPOTENCY_TTL
from sitsearch.workers.jobs.store.lookup import Lookup
from sitsearch.workers.jobs.store.records import BLOCK, Claim, decode_job, encode_job, stream_entries, to_json

#: Seconds over which it is looked how fast jobs end.
LATELY = 60.0
#: Leases that are renewed in one round trip: others get their turn between two of them.
_RENEWED = 500


class Queue(Lookup):
    """Jobs on their way from submission to their end."""

    _woken = "0"  # the last wake-up
    _unanswered: tuple[str, str, str] | None = None  # consumer, job and nonce of a taking whose answer was lost

    # --- the gateway's side ------------------------------------------------------------------------------------------

    @reachable
    async def submit(
        self, job: Job, *, idempotency_key: str | None = None, body_digest: str | None = None
    ) -> tuple[Job, bool]:
        """Record and queue a job in one step; `(job, True)`, or the earlier job and False for a repeated key.

        Raises:
            IdempotencyConflict: the key was used with another digest within `IDEMPOTENCY_TTL`.
            QueueFull: `settings.max_queued` jobs wait, or jobs that may spend `settings.max_queued_nfe` together.
        """
        await self.check_room()
        outcome, job_id = await self.scripts.submit(
            job.id,
            encode_job(job),
            now=time.time(),
            limit=self.settings.max_queued,
            nfe=job.request.budget.most_nfe(job.request.sampler.rows),
            most=self.settings.max_queued_nfe,
            idempotency_key=idempotency_key,
            digest=body_digest or "",
            remember=IDEMPOTENCY_TTL,
        )
        if outcome == b"conflict":
            raise IdempotencyConflict(job_id)
        if outcome == b"full":
            raise QueueFull(f"{self.settings.max_queued} jobs are waiting already", await self._seconds_for_room())
        if outcome == b"busy":
            raise QueueFull(
                f"with this job those that wait could spend more than {self.settings.max_queued_nfe:,} NFE together",
                await self._seconds_for_room(),
            )
        if outcome == b"known":
            return await self.require(job_id), False
        return job, True

    async def _seconds_for_room(self) -> int:
        """Seconds in which a job has ended lately, in the mean; when none has, `LATELY`."""
        since = time.time() + self.settings.job_ttl - LATELY
        ended: Any = await self.redis.zcount(self.keys.expiry, since, "+inf")
        return math.ceil(LATELY / max(1, ended))

    async def cancel(self, job_id: str) -> Job | None:
        """Make a queued or running job canceled at once; an ended job stays as it is. None for an unknown one.

        Its coordinator learns of it from `cancellations`, or else at its next write.
        """
        await self._cancel(job_id)
        return await self.get(job_id)

    @reachable
    async def _cancel(self, job_id: str) -> None:
        ttls = {"job_ttl": self.settings.job_ttl, "image_ttl": self.settings.image_ttl}
        await self.scripts.cancel(job_id, now=time.time(), **ttls)

    @reachable
    async def extend(self, job: Job, extension: Extension) -> None:
        """Queue a search that succeeded once more, with more budget.

        Args:
            job: as it was read.
            extension: one more than it has.

        Raises:
            JobChanged: it is not as it was read; nothing was written.
        """
        await self.check_room()
        more = [*job.extensions, extension]
        raised = {"nfe_budget": extension.nfe, "forwards_budget": extension.nfe * job.request.sampler.rows}
        progress = job.progress.model_copy(
            update={"curve": ()}
            | {name: old + raised[name] for name in raised if (old := getattr(job.progress, name)) is not None}
        )
        outcome = await self.scripts.extend(
            job.id,
            before=to_json(job.extensions),
            after=to_json(more),
            length=extension.after_round,
            progress=to_json(progress),
            nfe=extension.nfe,
            image_ttl=self.settings.image_ttl,
        )
        if outcome != b"ok":
            raise JobChanged(job.id)

    @reachable
    async def resume(self, job: Job) -> None:
        """Queue a search that failed or was canceled once more: it goes on from where its log ends.

        Raises:
            JobChanged: it has succeeded, or there is no such job; nothing was written.
        """
        await self.check_room()
        left = job.request.budget.most_nfe(job.request.sampler.rows) - job.usage.nfe_search
        nfe = max(0, left + sum(extension.nfe for extension in job.extensions))
        if await self.scripts.resume(job.id, nfe=nfe, image_ttl=self.settings.image_ttl) != b"ok":
            raise JobChanged(job.id)

    # --- the coordinator's side --------------------------------------------------------------------------------------

    async def claim(self, consumer: str, *, block: float = 1.0, held: Collection[str] = ()) -> Claim | None:
        """The next job to run, now running, or None after `block` seconds without one.

        Jobs whose holder was silent for `settings.lease` come first, then those that wait. One whose record cannot be
        read is ended as failed on the way.

        Args:
            consumer: who claims.
            block: seconds to wait for a job.
            held: ids of jobs that the consumer works on, which it is not given again.
        """
        deadline = time.monotonic() + block
        if self._unanswered is not None and self._unanswered[0] == consumer and self._unanswered[1] not in held:
            _, lost, nonce = self._unanswered
            if claim := await self._take(consumer, lost, nonce):
                return claim
        while True:
            job_id = await self._next(held)
            if job_id is None:
                if (left := deadline - time.monotonic()) <= 0:
                    return None
                await self._wait_for_jobs(left)
            elif claim := await self._take(consumer, job_id, secrets.token_hex(8)):
                return claim

    @reachable
    async def _next(self, held: Collection[str]) -> str | None:
        return await self.scripts.next(held)

    @reachable
    async def _wait_for_jobs(self, block: float) -> None:
        wait = max(1, int(min(block, BLOCK) * 1000))
        streams: Any = await self.redis.xread({self.keys.wakeups: self._woken}, block=wait)
        if entries := stream_entries(streams):
            self._woken = entries[-1][0].decode()

    @reachable
    async def _take(self, consumer: str, job_id: str, nonce: str) -> Claim | None:
        self._unanswered = consumer, job_id, nonce
        taken = await self.scripts.take(job_id, consumer, nonce, now=time.time(), lease=self.settings.lease)
        self._unanswered = None
        if taken is None:
            return None
        before, flat = taken
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        token = fields[b"token"].decode()
        try:
            job = decode_job(fields)
        except UnreadableRecord as error:
            reason = JobError(code="unreadable-record", detail=str(error)[:500])
            texts = [to_json(None), to_json(reason), fields.get(b"usage", b"{}")]
            await self._end(job_id, token, Status.FAILED, texts)
            return None
        return Claim(
            job, int(fields[b"fence"]), token, taken_over=before == b"running", attempts=int(fields[b"attempts"])
        )

    @reachable
    async def renew(self, claims: Sequence[Claim]) -> Sequence[LeaseLost | JobCanceled | None]:
        """Heartbeat: the leases start anew; for each claim None, or why it no longer holds."""
        refusals: list[LeaseLost | JobCanceled | None] = []
        for first in range(0, len(claims), _RENEWED):
            part = claims[first : first + _RENEWED]
            held = [(claim.job.id, claim.token) for claim in part]
            outcomes = await self.scripts.renew(held, self.settings.lease)
            refusals += [claim.refusal(outcome) for claim, outcome in zip(part, outcomes, strict=True)]
        return refusals

    @reachable
    async def note(self, claim: Claim, text: str) -> None:
        """Say what the job waits for, until its next round.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds.
        """
        claim.check(await self.scripts.note(claim.job.id, claim.token, to_json(text)))

    @reachable
    async def release(self, claim: Claim) -> None:
        """Give a lease back between two rounds, so that another coordinator goes on at once.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds.
        """
        claim.check(await self.scripts.release(claim.job.id, claim.token))

    @reachable
    async def cancellations(self, last_id: str, *, block: float = 1.0) -> tuple[str, set[str]]:
        """Running jobs that were canceled after `last_id` (`0` for as long ago as is known), waiting for `block`
        seconds if there are none; and the id from which to go on."""
        wait = max(1, int(min(block, BLOCK) * 1000))
        streams: Any = await self.redis.xread({self.keys.cancellations: last_id}, block=wait)
        entries = stream_entries(streams)
        return entries[-1][0].decode() if entries else last_id, {fields[b"job"].decode() for _, fields in entries}

    @reachable
    async def finish(
        self,
        claim: Claim,
        *,
        status: Literal[Status.SUCCEEDED, Status.FAILED],
        result: Result | None = None,
        error: JobError | None = None,
        usage: Usage,
    ) -> None:
        """Make the job terminal, once; it leaves the queue and its TTLs start. A result that it has already stays if
        there is no new one.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds; nothing was written.
        """
        texts = [to_json(result), to_json(error), to_json(usage)]
        claim.check(await self._end(claim.job.id, claim.token, status, texts))

    async def _end(self, job_id: str, token: str, status: Status, texts: Sequence[bytes]) -> bytes:
        ttls = {"job_ttl": self.settings.job_ttl, "image_ttl": self.settings.image_ttl}
        return await self.scripts.finish(job_id, token, status, texts=texts, now=time.time(), **ttls)

    @reachable
    async def leave(self, claim: Claim, result: Result, usage: Usage) -> None:
        """Give a job that was canceled under its coordinator what it had found; nothing happens when it went on."""
        await self.scripts.leave(claim.job.id, claim.token, texts=[to_json(result), to_json(usage)])
