"""A job's events as server-sent events (WHATWG HTML, section 9.2).

FastAPI writes them down, sets the headers and sends a comment after each 15 s of silence, so that proxies and clients
know that the stream lives.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from fastapi.sse import ServerSentEvent

from sitsearch.service.gateway.views import job_view
from sitsearch.workers.jobs.errors import StoreError
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.records import Event

#: Milliseconds after which a client should connect again.
_RETRY = 2000


async def stream(
    store: JobStore, job_id: str, last_id: str | None, *, root: str, stopping: asyncio.Event
) -> AsyncGenerator[ServerSentEvent]:
    """What the stream says, until the job has ended or the gateway stops.

    Events are `job` (the whole view: at the start, unless `last_id` still connects, and at the end), `status` (queued
    or running) and `round` (the progress, with the newest point of its curve). When the store goes away the stream
    ends; the client comes back with the id that it saw last.
    """
    yield ServerSentEvent(retry=_RETRY)
    events = store.events(job_id, last_id)
    stop = asyncio.ensure_future(stopping.wait())
    either: set[asyncio.Future[Any]] = {stop}
    try:
        while not stopping.is_set():
            following = asyncio.ensure_future(anext(events))
            either = {following, stop}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                event_id, event = following.result()
                yield await _render(store, job_id, event_id, event, root)
    except (StopAsyncIteration, StoreError):
        return
    finally:
        for task in either:
            task.cancel()
        await asyncio.gather(*either, return_exceptions=True)


async def _render(store: JobStore, job_id: str, event_id: str, event: Event, root: str) -> ServerSentEvent:
    if event.type == "snapshot" or event.terminal:
        snapshot = await store.snapshot(job_id)
        if snapshot is None:  # an event without data would not reach an EventSource
            return ServerSentEvent(event="job", id=event_id, raw_data="null")
        return ServerSentEvent(event="job", id=event_id, data=job_view(snapshot, root))
    if event.type == "round":
        return ServerSentEvent(event="round", id=event_id, data=event.data)
    return ServerSentEvent(event="status", id=event_id, data={"status": event.type})
