"""The queue: jobs are submitted to it, claimed from it under leases, and leave it when they end.

A lease is an entry of the queue's consumer group that is renewed in time; a fencing token, raised with every claim,
keeps out the writes of a holder that lost it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

from redis import exceptions as failures

from sitsearch.workers.jobs.errors import IdempotencyConflict, JobCanceled, JobChanged, LeaseLost, QueueFull
from sitsearch.workers.jobs.job import Extension, Job, JobError, Result, Status, Usage
from sitsearch.workers.jobs.store.connection import reachable
from sitsearch.workers.jobs.store.keys import GROUP, IDEMPOTENCY_TTL
from sitsearch.workers.jobs.store.lookup import Lookup
from sitsearch.workers.jobs.store.records import BLOCK, Claim, decode_job, encode_job, stream_entries, to_json

#: Seconds after which a consumer that holds nothing is forgotten.
_CONSUMER_IDLE = 3600.0
#: Leases that are renewed in one round trip: others get their turn between two of them.
_RENEWED = 500


class Queue(Lookup):
    """Jobs on their way from submission to their end."""

    _group_exists = False

    # --- the gateway's side ------------------------------------------------------------------------------------------

    @reachable
    async def submit(
        self, job: Job, *, idempotency_key: str | None = None, body_digest: str | None = None
    ) -> tuple[Job, bool]:
        """Record and queue a job in one step; `(job, True)`, or the earlier job and False for a repeated key.

        Raises:
            IdempotencyConflict: the key was used with another digest within `IDEMPOTENCY_TTL`.
            QueueFull: `settings.max_queued` jobs wait.
        """
        outcome, job_id = await self.scripts.submit(
            job.id,
            encode_job(job),
            now=time.time(),
            limit=self.settings.max_queued,
            idempotency_key=idempotency_key,
            digest=body_digest or "",
            remember=IDEMPOTENCY_TTL,
        )
        if outcome == b"conflict":
            raise IdempotencyConflict(job_id)
        if outcome == b"full":
            raise QueueFull(self.settings.max_queued)
        if outcome == b"known":
            return await self.require(job_id), False
        return job, True

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
        more = [*job.extensions, extension]
        raised = {"nfe_budget": extension.nfe, "forwards_budget": extension.nfe * job.request.sampler.rows}
        progress = job.progress.model_copy(
            update={name: old + raised[name] for name in raised if (old := getattr(job.progress, name)) is not None}
        )
        outcome = await self.scripts.extend(
            job.id,
            before=to_json(job.extensions),
            after=to_json(more),
            length=extension.after_round,
            progress=to_json(progress),
            image_ttl=self.settings.image_ttl,
        )
        if outcome != b"ok":
            raise JobChanged(job.id)

    # --- the coordinator's side --------------------------------------------------------------------------------------

    @reachable
    async def claim(self, consumer: str, *, block: float = 1.0) -> Claim | None:
        """The next job to run, now running, or None after `block` seconds without one.

        Entries whose holder was silent for `settings.lease` come first, then new ones. Entries of ended jobs are
        dropped on the way.
        """
        await self._ensure_group()
        deadline = time.monotonic() + block
        try:
            while True:
                entry = await self.scripts.steal(consumer, self.settings.lease)
                entry = entry or await self._next_entry(consumer, deadline - time.monotonic())
                if entry is None and time.monotonic() >= deadline:
                    return None
                if entry and (claim := await self._take(consumer, *entry)):
                    return claim
        except failures.ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
            self._group_exists = False  # the store was emptied under us
            return None

    async def _ensure_group(self) -> None:
        if self._group_exists:
            return
        try:
            await self.redis.xgroup_create(self.keys.queue, GROUP, id="0", mkstream=True)
        except failures.ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        await self.scripts.forget_consumers(_CONSUMER_IDLE)
        self._group_exists = True

    async def _next_entry(self, consumer: str, block: float) -> tuple[bytes, str] | None:
        wait = None if block <= 0 else max(1, int(min(block, BLOCK) * 1000))
        streams: Any = await self.redis.xreadgroup(GROUP, consumer, {self.keys.queue: ">"}, count=1, block=wait)
        entries = stream_entries(streams)
        return (entries[0][0], entries[0][1][b"job"].decode()) if entries else None

    async def _take(self, consumer: str, message: bytes, job_id: str) -> Claim | None:
        taken = await self.scripts.take(job_id, consumer, message, now=time.time())
        if taken is None:
            return None
        status, flat = taken
        fields = dict(zip(flat[::2], flat[1::2], strict=True))
        return Claim(decode_job(fields), int(fields[b"fence"]), message, taken_over=status == b"running")

    @reachable
    async def renew(self, claims: Sequence[Claim]) -> Sequence[LeaseLost | JobCanceled | None]:
        """Heartbeat: the leases start anew; for each claim None, or why it no longer holds."""
        refusals: list[LeaseLost | JobCanceled | None] = []
        for first in range(0, len(claims), _RENEWED):
            part = claims[first : first + _RENEWED]
            outcomes = await self.scripts.renew([(claim.job.id, claim.fence) for claim in part])
            refusals += [claim.refusal(outcome) for claim, outcome in zip(part, outcomes, strict=True)]
        return refusals

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
        """Make the job terminal, once; its queue entry goes and its TTLs start.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds; nothing was written.
        """
        outcome = await self.scripts.finish(
            claim.job.id,
            claim.fence,
            status,
            texts=[to_json(result), to_json(error), to_json(usage)],
            now=time.time(),
            job_ttl=self.settings.job_ttl,
            image_ttl=self.settings.image_ttl,
        )
        claim.check(outcome)
