"""Waiting for news of many streams at once, over one connection: a thousand watchers are no thousand connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from sitsearch.workers.jobs.store.records import event_order


class Waiting:
    """All who wait for events in this process.

    Args:
        look: asked with the last event that was seen of each job, which jobs have newer ones; it may wait a little.
    """

    def __init__(self, look: Callable[[Mapping[str, str]], Awaitable[set[str]]]) -> None:
        self._look = look
        self._waiting: dict[str, dict[asyncio.Future[None], str]] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, job_id: str, last_id: str, seconds: float) -> bool:
        """Whether a job had an event after one within some seconds.

        Raises:
            StoreUnavailable: the store is away.
        """
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, {})[news] = last_id
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._watch())
        try:
            await asyncio.wait_for(news, seconds)
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].pop(news)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
        return True

    async def _watch(self) -> None:
        """Look for as long as somebody waits."""
        while self._waiting:
            seen = {job_id: min(ids.values(), key=event_order) for job_id, ids in self._waiting.items()}
            try:
                for job_id in await self._look(seen):
                    for news in self._waiting.get(job_id, ()):
                        if not news.done():
                            news.set_result(None)
            except Exception as error:
                for waiting in self._waiting.values():
                    for news in waiting:
                        if not news.done():
                            news.set_exception(error)
            await asyncio.sleep(0)  # let those who have news go and read it
