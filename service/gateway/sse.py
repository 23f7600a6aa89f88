"""A job's events as server-sent events (WHATWG HTML, section 9.2)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from sitsearch.service.gateway.views import job_view
from sitsearch.workers.jobs.errors import StoreError
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.records import Event

#: Seconds of silence after which a comment tells proxies and clients that the stream lives.
KEEP_ALIVE = 15.0
#: Milliseconds after which a client should connect again.
_RETRY = 2000


async def stream(
    store: JobStore, job_id: str, last_id: str | None, *, root: str, stopping: asyncio.Event
) -> AsyncIterator[str]:
    """The text of the stream, until the job has ended or the gateway stops.

    Events are `job` (the whole view: at the start, unless `last_id` still connects, and at the end), `status` (queued
    or running) and `round` (the progress, with the newest point of its curve). When the store goes away the stream
    ends; the client comes back with the id that it saw last.
    """
    yield f"retry: {_RETRY}\n\n"
    events = store.events(job_id, last_id)
    stop = asyncio.ensure_future(stopping.wait())
    following: asyncio.Future[tuple[str, Event]] | None = None
    try:
        while not stopping.is_set():
            following = following or asyncio.ensure_future(anext(events))
            either: set[asyncio.Future[Any]] = {following, stop}
            await asyncio.wait(either, timeout=KEEP_ALIVE, return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                yield ": keep-alive\n\n"
                continue
            event_id, event = following.result()
            following = None
            yield await _render(store, job_id, event_id, event, root)
    except (StopAsyncIteration, StoreError):
        return
    finally:
        stop.cancel()
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await asyncio.gather(stop, return_exceptions=True)


async def _render(store: JobStore, job_id: str, event_id: str, event: Event, root: str) -> str:
    if event.type == "snapshot" or event.terminal:
        snapshot = await store.snapshot(job_id)
        name, data = "job", "null" if snapshot is None else job_view(snapshot, root).model_dump_json()
    elif event.type == "round":
        name, data = "round", json.dumps(event.data)
    else:
        name, data = "status", json.dumps({"status": event.type})
    return f"event: {name}\nid: {event_id}\ndata: {data}\n\n"
