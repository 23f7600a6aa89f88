"""What happens to jobs, as a stream a job that readers follow."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from sitsearch.workers.jobs.errors import UnknownJob
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.store.connection import reachable
from sitsearch.workers.jobs.store.lookup import Lookup
from sitsearch.workers.jobs.store.records import BLOCK, Event, event_order, stream_entries


class Events(Lookup):
    """Following a job."""

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
        return job if job.status.terminal else await self.require(job_id)

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
            for event_id, event in await self._read_events(job_id, last_id, BLOCK):
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
        wait = max(1, int(min(block, BLOCK) * 1000))
        streams: Any = await self.redis.xread({self.keys.events(job_id): last_id}, count=100, block=wait)
        return [
            (entry_id.decode(), Event(fields[b"type"].decode(), json.loads(fields[b"data"])))
            for entry_id, fields in stream_entries(streams)
        ]
