"""What the workers publish and the gateway reads: the offer, and figures for the metrics page."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sitsearch.workers.jobs.lenient import read
from sitsearch.workers.jobs.offer import Offer
from sitsearch.workers.jobs.store.connection import Connection, reachable
from sitsearch.workers.jobs.store.records import to_json

log = logging.getLogger(__name__)


class Board(Connection):
    """What is pinned up for all to read."""

    @reachable
    async def publish_offer(self, offer: Offer) -> None:
        """Say what this deployment offers; believed for `settings.offer_ttl`."""
        await self.redis.set(self.keys.offer, to_json(offer), px=self._offer_ms)

    @reachable
    async def offer(self) -> Offer | None:
        """What this deployment offers, or None when no worker has said so lately, in words that are understood here."""
        text = await self.redis.get(self.keys.offer)
        try:
            return None if text is None else read(Offer, text)
        except ValidationError as error:
            log.warning("what the workers offer cannot be read, they may be of another version: %s", error)
            return None

    @reachable
    async def publish_worker_metrics(self, worker: str, values: Mapping[str, float]) -> None:
        """Report a worker's figures (counters end in `_total`); believed for `settings.offer_ttl`."""
        now, key = time.time(), self.keys.worker(worker)
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            if values:
                pipe.hset(key, mapping={name: repr(float(value)) for name, value in values.items()})
            pipe.pexpire(key, self._offer_ms)
            pipe.zadd(self.keys.workers, {worker: now})
            pipe.zremrangebyscore(self.keys.workers, "-inf", now - self.settings.offer_ttl)
            pipe.pexpire(self.keys.workers, self._offer_ms)
            await pipe.execute()

    @reachable
    async def worker_metrics(self) -> dict[str, dict[str, float]]:
        """The figures of the workers that reported lately, by worker."""
        names: Any = await self.redis.zrange(self.keys.workers, 0, -1)
        async with self.redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self.keys.worker(name.decode()))
            reports: Any = await pipe.execute()
        return {
            name.decode(): {figure.decode(): float(value) for figure, value in report.items()}
            for name, report in zip(names, reports, strict=True)
            if report
        }

    @property
    def _offer_ms(self) -> int:
        return max(1, round(self.settings.offer_ttl * 1000))
