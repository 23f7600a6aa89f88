"""What happens to jobs, as a stream a job that readers follow."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from sitsearch.workers.jobs.errors import UnknownJob
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.store.connection import reachable
from sitsearch.workers.jobs.store.lookup import Lookup
from sitsearch.workers.jobs.store.records import BLOCK, Event, event_order, stream_entries
from sitsearch.workers.jobs.store.waiting import Waiting

#: Milliseconds for which the common reader waits before it looks who else is waiting by now.
LOOK = 200


class Events(Lookup):
    """Following a job."""

    _waiting: Waiting | None = None

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

    async def _read_events(self, job_id: str, last_id: str, block: float) -> Sequence[tuple[str, Event]]:
        """The events after one, waited for if there are none: by all readers of this process together."""
        if self._waiting is None:
            self._waiting = Waiting(self._newer)
        events = await self._events_after(job_id, last_id)
        if not events and await self._waiting.wait(job_id, last_id, min(block, BLOCK)):
            events = await self._events_after(job_id, last_id)
        return events

    @reachable
    async def _newer(self, seen: Mapping[str, str]) -> set[str]:
        """Jobs that have events after those that were seen; returns soon, with or without any."""
        jobs = {self.keys.events(job_id).encode(): job_id for job_id in seen}
        streams: dict[Any, Any] = {self.keys.events(job_id): last_id for job_id, last_id in seen.items()}
        found: Any = await self.redis.xread(streams, count=1, block=LOOK)
        names = found if isinstance(found, dict) else (name for name, _ in found or ())
        return {jobs[name] for name in names}

    @reachable
    async def _events_after(self, job_id: str, last_id: str) -> Sequence[tuple[str, Event]]:
        streams: Any = await self.redis.xread({self.keys.events(job_id): last_id}, count=100)
        return [
            (entry_id.decode(), Event(fields[b"type"].decode(), json.loads(fields[b"data"])))
            for entry_id, fields in stream_entries(streams)
        ]
