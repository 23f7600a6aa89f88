"""What the workers publish and the gateway reads: the offer, and figures for the metrics page."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ParamSpec, Self, TypeVar, cast

from redis import exceptions as failures
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.schemas import Offer
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.jobs.store.records import to_json
from sitsearch.workers.settings import Settings

_SOCKET_TIMEOUT, _CONNECT_TIMEOUT = 5.0, 2.0

P = ParamSpec("P")
T = TypeVar("T")


def reachable(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Turn the client library's "not now" into StoreUnavailable, and heed a cancellation that it lost.

    Before Python 3.12, `asyncio.wait_for`, with which it sends, swallows a cancellation that comes as the sending ends.
    """

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        try:
            result = await method(*args, **kwargs)
        except (
            failures.ConnectionError,
            failures.TimeoutError,
            failures.ReadOnlyError,
            failures.OutOfMemoryError,
            OSError,
        ) as error:
            raise StoreUnavailable(f"Redis does not serve: {error}") from error
        if task and task.cancelling() > asked:
            raise asyncio.CancelledError
        return result

    return call


class Board:
    """The connection, and what is pinned up for all to read. Every method raises StoreUnavailable when Redis is away.

    Args:
        redis: a client with `decode_responses` off.
        settings: the key prefix and `offer_ttl`.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings = redis, settings
        self.keys = Keys(settings.key_prefix)

    @classmethod
    def from_url(cls, url: str, settings: Settings, *, connections: int | None = None) -> Self:
        """A store over the Redis at `url`.

        A broken connection is tried a few times within a second; a silent server is given up after 5 s.

        Args:
            url: of the server.
            settings: see the class.
            connections: of so many, a call waits for one to be free: for a process with thousands of short calls at
                once, which Redis would refuse. None opens as many as there are calls, some of which wait for seconds.
        """
        options: dict[str, Any] = {
            "socket_timeout": _SOCKET_TIMEOUT,
            "socket_connect_timeout": _CONNECT_TIMEOUT,
            "retry": Retry(ExponentialBackoff(cap=0.4, base=0.05), 3, supported_errors=(failures.ConnectionError,)),
            "health_check_interval": 30,
        }
        if connections is None:
            return cls(Redis.from_url(url, **options), settings)
        pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=None, **options)
        return cls(Redis.from_pool(pool), settings)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.redis.aclose()

    @reachable
    async def ping(self) -> None:
        """Return when Redis answers."""
        await cast(Awaitable[Any], self.redis.ping())

    @reachable
    async def publish_offer(self, offer: Offer) -> None:
        """Say what this deployment offers; believed for `settings.offer_ttl`."""
        await self.redis.set(self.keys.offer, to_json(offer), px=self._offer_ms)

    @reachable
    async def offer(self) -> Offer | None:
        """What this deployment offers, or None when no worker has said so lately."""
        text = await self.redis.get(self.keys.offer)
        return None if text is None else Offer.model_validate_json(text)

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
