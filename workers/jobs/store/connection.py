"""The connection to Redis that every part of the store shares."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Self, TypeVar, cast

from redis import exceptions as failures
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.jobs.store.scripts import Scripts
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


class Connection:
    """A client of one Redis, with the deployment's keys and scripts.

    Every method of it, and of what is built on it, raises StoreUnavailable when Redis is away.

    Args:
        redis: a client with `decode_responses` off.
        settings: the deployment's settings.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self.redis, self.settings = redis, settings
        self.keys = Keys(settings.key_prefix)
        self.scripts = Scripts(redis, self.keys)

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
