"""Reading jobs: one, or pages of them."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from sitsearch.workers.jobs.errors import BadCursor, UnknownJob, UnreadableRecord
from sitsearch.workers.jobs.job import Job, Status
from sitsearch.workers.jobs.store.connection import Connection, reachable
from sitsearch.workers.jobs.store.records import NO_EVENT, Snapshot, decode_job


class Lookup(Connection):
    """The records of jobs, as they stand."""

    async def get(self, job_id: str) -> Job | None:
        """The job, or None."""
        snapshot = await self.snapshot(job_id)
        return snapshot.job if snapshot else None

    async def snapshot(self, job_id: str) -> Snapshot | None:
        """The job with its queue position, best candidates and newest event, or None."""
        return (await self._snapshots([job_id]))[0]

    @reachable
    async def _snapshots(self, job_ids: Sequence[str], *, brief: bool = False) -> list[Snapshot | None]:
        """Jobs as they stand; if `brief`, without their curves, and without those that cannot be read."""
        async with self.redis.pipeline(transaction=True) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self.keys.job(job_id))
                pipe.zrank(self.keys.waiting, job_id)
                pipe.xrevrange(self.keys.events(job_id), count=1)
                pipe.lrange(self.keys.curve(job_id), 0, 0 if brief else -1)
            replies = await pipe.execute()
        found: list[Snapshot | None] = []
        for fields, rank, entries, curve in zip(*(replies[i::4] for i in range(4)), strict=True):
            try:
                found.append(_snapshot(fields, rank, entries, () if brief else curve) if fields else None)
            except UnreadableRecord:
                if not brief:
                    raise
                found.append(None)
        return found

    async def require(self, job_id: str) -> Job:
        """The job.

        Raises:
            UnknownJob: no such job.
        """
        job = await self.get(job_id)
        if job is None:
            raise UnknownJob(job_id)
        return job

    @reachable
    async def page(
        self, *, status: Status | None = None, cursor: str | None = None, limit: int = 50
    ) -> tuple[Sequence[Snapshot], str | None]:
        """A page of jobs, newest first, and the cursor of the next page, or None at the end.

        They come without their curves, and without those whose records cannot be read.

        Raises:
            BadCursor: `cursor` is not one that this method returned.
        """
        index = self.keys.of_status(status) if status else self.keys.jobs
        start = 0 if cursor is None else await self._after(index, cursor)
        entries: Any = await self.redis.zrevrange(index, start, start + limit, withscores=True)
        page = entries[:limit]
        snapshots = await self._snapshots([job_id.decode() for job_id, _ in page], brief=True) if page else []
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
    async def counts(self) -> dict[Status, int]:
        """How many jobs the store holds in each status."""
        return await self.scripts.count(now=time.time())


def _snapshot(fields: Any, rank: int | None, entries: Any, curve: Sequence[bytes]) -> Snapshot:
    return Snapshot(
        job=decode_job(fields, curve),
        queue_position=rank,
        best=tuple(json.loads(fields.get(b"best", b"[]"))),
        last_event=entries[0][0].decode() if entries else NO_EVENT,
    )
