"""The job store: every word between gateway and workers that must outlive a process, kept in Redis.

A job is a hash with one JSON text a field of `Job`, so a script can change its status without parsing JSON (Lua would
round 64-bit seeds). Beside these fields it holds the claim: `fence`, `consumer` and `message` (the queue entry), and
`best`, the ids of the best candidates so far. Keys are in `keys`, atomic changes in `scripts`. Nothing is unpickled.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from typing import Any, Literal, cast

from redis import exceptions as failures
from redis.asyncio import Redis

from sitsearch.workers.jobs.errors import (
    BadCursor,
    IdempotencyConflict,
    JobCanceled,
    JobChanged,
    LeaseLost,
    QueueFull,
    RoundOutOfOrder,
    UnknownJob,
)
from sitsearch.workers.jobs.schemas import Extension, Job, JobError, Progress, Result, Round, Status, Usage
from sitsearch.workers.jobs.store.board import Board, reachable
from sitsearch.workers.jobs.store.keys import GROUP, IDEMPOTENCY_TTL
from sitsearch.workers.jobs.store.records import (
    Claim,
    Event,
    Snapshot,
    decode_job,
    encode_job,
    event_order,
    stream_entries,
    to_json,
)
from sitsearch.workers.jobs.store.scripts import Scripts
from sitsearch.workers.settings import Settings

__all__ = ["Claim", "Event", "JobStore", "Snapshot"]

#: Seconds of one blocking read; shorter than any sensible socket timeout.
_BLOCK = 2.0
#: Seconds after which a consumer that holds nothing is forgotten.
_CONSUMER_IDLE = 3600.0
_NO_ID = "0-0"
#: Leases that are renewed in one round trip: others get their turn between two of them.
_RENEWED = 500


class JobStore(Board):
    """Jobs, their queue, round logs, images and events, and what the workers publish.

    Every method raises StoreUnavailable when Redis is away.

    Args:
        redis: a client with `decode_responses` off.
        settings: prefix, TTLs, lease and queue limit.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        super().__init__(redis, settings)
        self._scripts = Scripts(redis, self.keys)
        self._group_exists = False

    # --- jobs --------------------------------------------------------------------------------------------------------

    @reachable
    async def submit(
        self, job: Job, *, idempotency_key: str | None = None, body_digest: str | None = None
    ) -> tuple[Job, bool]:
        """Record and queue a job in one step; `(job, True)`, or the earlier job and False for a repeated key.

        Raises:
            IdempotencyConflict: the key was used with another digest within `IDEMPOTENCY_TTL`.
            QueueFull: `settings.max_queued` jobs wait.
        """
        outcome, job_id = await self._scripts.submit(
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
            return await self._require(job_id), False
        return job, True

    async def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        snapshot = await self.snapshot(job_id)
        return snapshot.job if snapshot else None

    async def snapshot(self, job_id: str) -> Snapshot | None:
        """The job with its queue position, best candidates and newest event, or None."""
        return (await self._snapshots([job_id]))[0]

    @reachable
    async def _snapshots(self, job_ids: Sequence[str]) -> list[Snapshot | None]:
        async with self.redis.pipeline(transaction=True) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self.keys.job(job_id))
                pipe.zrank(self.keys.waiting, job_id)
                pipe.xrevrange(self.keys.events(job_id), count=1)
            replies = await pipe.execute()
        return [
            Snapshot(
                job=decode_job(fields),
                queue_position=rank,
                best=tuple(json.loads(fields.get(b"best", b"[]"))),
                last_event=entries[0][0].decode() if entries else _NO_ID,
            )
            if fields
            else None
            for fields, rank, entries in zip(replies[::3], replies[1::3], replies[2::3], strict=True)
        ]

    async def _require(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job is None:
            raise UnknownJob(job_id)
        return job

    async def list(
        self, *, status: Status | None = None, cursor: str | None = None, limit: int = 50
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, newest first, and the cursor of the next page, or None at the end.

        Raises:
            BadCursor: `cursor` is not one that this method returned.
        """
        snapshots, following = await self.page(status=status, cursor=cursor, limit=limit)
        return [snapshot.job for snapshot in snapshots], following

    @reachable
    async def page(
        self, *, status: Status | None = None, cursor: str | None = None, limit: int = 50
    ) -> tuple[Sequence[Snapshot], str | None]:
        """`list` with each job's queue position and best candidates."""
        index = self.keys.of_status(status) if status else self.keys.jobs
        start = 0 if cursor is None else await self._after(index, cursor)
        entries: Any = await self.redis.zrevrange(index, start, start + limit, withscores=True)
        page = entries[:limit]
        snapshots = await self._snapshots([job_id.decode() for job_id, _ in page]) if page else []
        more = len(entries) > limit
        return [s for s in snapshots if s], f"{page[-1][1]!r}:{page[-1][0].decode()}" if more else None

    async def _after(self, index: str, cursor: str) -> int:
        """The rank that follows `cursor`'s job, which may have left the index since."""
        score, _, job_id = cursor.partition(":")
        try:
            bound = float(score)
            member = job_id.encode()
        except ValueError:
            raise BadCursor(cursor) from None
        if not job_id or bound != bound:
            raise BadCursor(cursor)
        rank: Any = await self.redis.zrevrank(index, member)
        newer: Any = rank + 1 if rank is not None else await self.redis.zcount(index, bound, "+inf")
        return int(newer)

    @reachable
    async def queue_position(self, job_id: str) -> int | None:
        """Jobs ahead of this one in the queue (0 = next), or None when it does not wait."""
        return cast("int | None", await self.redis.zrank(self.keys.waiting, job_id))

    async def cancel(self, job_id: str) -> Job | None:
        """Make a queued or running job canceled at once; an ended job stays as it is. None for an unknown one.

        Its coordinator learns of it from `cancellations`, or else at its next write.
        """
        await self._cancel(job_id)
        return await self.get(job_id)

    @reachable
    async def _cancel(self, job_id: str) -> None:
        ttls = {"job_ttl": self.settings.job_ttl, "image_ttl": self.settings.image_ttl}
        await self._scripts.cancel(job_id, now=time.time(), **ttls)

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
        outcome = await self._scripts.extend(
            job.id,
            before=to_json(job.extensions),
            after=to_json(more),
            length=extension.after_round,
            progress=to_json(progress),
            image_ttl=self.settings.image_ttl,
        )
        if outcome != b"ok":
            raise JobChanged(job.id)

    @reachable
    async def counts(self) -> dict[Status, int]:
        """How many jobs the store holds in each status."""
        return await self._scripts.count(now=time.time())

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
                entry = await self._scripts.steal(consumer, self.settings.lease)
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
        await self._scripts.forget_consumers(_CONSUMER_IDLE)
        self._group_exists = True

    async def _next_entry(self, consumer: str, block: float) -> tuple[bytes, str] | None:
        wait = None if block <= 0 else max(1, int(min(block, _BLOCK) * 1000))
        streams: Any = await self.redis.xreadgroup(GROUP, consumer, {self.keys.queue: ">"}, count=1, block=wait)
        entries = stream_entries(streams)
        return (entries[0][0], entries[0][1][b"job"].decode()) if entries else None

    async def _take(self, consumer: str, message: bytes, job_id: str) -> Claim | None:
        taken = await self._scripts.take(job_id, consumer, message, now=time.time())
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
            outcomes = await self._scripts.renew([(claim.job.id, claim.fence) for claim in part])
            refusals += [_refusal(claim, outcome) for claim, outcome in zip(part, outcomes, strict=True)]
        return refusals

    @reachable
    async def cancellations(self, last_id: str, *, block: float = 1.0) -> tuple[str, set[str]]:
        """Running jobs that were canceled after `last_id` (`0` for as long ago as is known), waiting for `block`
        seconds if there are none; and the id from which to go on."""
        wait = max(1, int(min(block, _BLOCK) * 1000))
        streams: Any = await self.redis.xread({self.keys.cancellations: last_id}, block=wait)
        entries = stream_entries(streams)
        return entries[-1][0].decode() if entries else last_id, {fields[b"job"].decode() for _, fields in entries}

    @reachable
    async def rounds(self, job_id: str) -> Sequence[Round]:
        """The round log."""
        texts = await cast(Awaitable[Any], self.redis.lrange(self.keys.rounds(job_id), 0, -1))
        return [Round.model_validate_json(text) for text in texts]

    @reachable
    async def append_round(
        self,
        claim: Claim,
        round: Round,
        *,
        progress: Progress,
        usage: Usage,
        images: Mapping[str, bytes],
        keep: Collection[str],
    ) -> None:
        """Log a round, with all that follows from it, in one step; also a heartbeat.

        Args:
            claim: the hold on the job.
            round: its index must be the length of the log.
            progress: the progress after the round.
            usage: the usage after the round.
            images: PNG bytes by candidate id; those that are not to be kept are not stored.
            keep: ids of the best candidates so far, best first; images of others are dropped.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds; nothing was written.
            RoundOutOfOrder: the log's length is another; nothing was written.
        """
        best = [*keep]
        point = progress.curve[-1].model_dump() if progress.curve else None
        event = progress.model_dump(exclude={"curve"}) | {"point": point}
        outcome, due = await self._scripts.append_round(
            claim.job.id,
            claim.fence,
            index=round.round,
            texts=[to_json(round), to_json(progress), to_json(usage), to_json(best), to_json(event)],
            keep=best,
            images=images,
            image_ttl=self.settings.image_ttl,
        )
        if outcome == b"order":
            raise RoundOutOfOrder(claim.job.id, round.round, due)
        _check(claim, outcome)

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
        outcome = await self._scripts.finish(
            claim.job.id,
            claim.fence,
            status,
            texts=[to_json(result), to_json(error), to_json(usage)],
            now=time.time(),
            job_ttl=self.settings.job_ttl,
            image_ttl=self.settings.image_ttl,
        )
        _check(claim, outcome)

    # --- images and events -------------------------------------------------------------------------------------------

    @reachable
    async def image(self, job_id: str, candidate_id: str) -> bytes | None:
        """One candidate's PNG bytes, or None when it is not kept (any more)."""
        return cast("bytes | None", await cast(Awaitable[Any], self.redis.hget(self.keys.images(job_id), candidate_id)))

    @reachable
    async def images(self, job_id: str) -> dict[str, bytes]:
        """The PNG bytes that are kept, by candidate id."""
        images = await cast(Awaitable[Any], self.redis.hgetall(self.keys.images(job_id)))
        return {candidate_id.decode(): png for candidate_id, png in images.items()}

    async def wait(self, job_id: str, timeout: float) -> Job:
        """The job once it has ended, or as it stands after `timeout` seconds; waits on its events.

        Raises:
            UnknownJob: no such job.
        """
        deadline = time.monotonic() + timeout
        snapshot = await self.snapshot(job_id)
        if snapshot is None:
            raise UnknownJob(job_id)
        job, last = snapshot.job, snapshot.last_event
        while not job.status.terminal and (left := deadline - time.monotonic()) > 0:
            events = await self._read_events(job_id, last, left)
            if not events:
                continue
            last = events[-1][0]
            if any(event.terminal for _, event in events):
                break
        return job if job.status.terminal else await self._require(job_id)

    async def events(self, job_id: str, last_id: str | None = None) -> AsyncIterator[tuple[str, Event]]:
        """What happens to a job, `(id, event)`, until it has ended.

        Starts with a `snapshot` event, at which the reader should read the job; with `last_id`, right after that event
        unless the stream no longer reaches so far back.

        Raises:
            UnknownJob: no such job.
        """
        snapshot = await self.snapshot(job_id)
        if snapshot is None:
            raise UnknownJob(job_id)
        ended = snapshot.job.status.terminal
        if last_id is None or not await self._connects(job_id, last_id, snapshot.last_event):
            yield snapshot.last_event, Event("snapshot", {})
            last_id = snapshot.last_event
        while not ended or event_order(last_id) < event_order(snapshot.last_event):
            for event_id, event in await self._read_events(job_id, last_id, _BLOCK):
                yield event_id, event
                last_id, ended = event_id, ended or event.terminal

    @reachable
    async def _connects(self, job_id: str, last_id: str, newest: str) -> bool:
        """`last_id` may be an event of this job, and the stream still holds all that came after it."""
        first: Any = await self.redis.xrange(self.keys.events(job_id), count=1)
        try:
            at = event_order(last_id)
            return bool(first) and event_order(first[0][0].decode()) <= at <= event_order(newest)
        except ValueError:
            return False

    @reachable
    async def _read_events(self, job_id: str, last_id: str, block: float) -> Sequence[tuple[str, Event]]:
        wait = max(1, int(min(block, _BLOCK) * 1000))
        streams: Any = await self.redis.xread({self.keys.events(job_id): last_id}, count=100, block=wait)
        return [
            (entry_id.decode(), Event(fields[b"type"].decode(), json.loads(fields[b"data"])))
            for entry_id, fields in stream_entries(streams)
        ]


def _refusal(claim: Claim, outcome: bytes) -> LeaseLost | JobCanceled | None:
    """What a script's refusal means."""
    if outcome == b"canceled":
        return JobCanceled(claim.job.id)
    return LeaseLost(claim.job.id) if outcome == b"lost" else None


def _check(claim: Claim, outcome: bytes) -> None:
    if refusal := _refusal(claim, outcome):
        raise refusal
