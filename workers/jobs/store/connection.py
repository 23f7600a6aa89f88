"""The connection to Redis that every part of the store shares."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, Self, TypeVar, cast

from redis import exceptions as failures
from redis.asyncio import BlockingConnectionPool, Redis, Sentinel
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from sitsearch.workers.jobs.errors import StoreForgets, StoreFull, StoreUnavailable
from sitsearch.workers.jobs.store.keys import Keys
from sitsearch.workers.jobs.store.scripts import Scripts
from sitsearch.workers.jobs.store.sentinels import sentinels_of
from sitsearch.workers.settings import Settings

_SOCKET_TIMEOUT, _CONNECT_TIMEOUT = 5.0, 2.0

#: Connections of a client that opens one for each call: its library's own limit is 100.
UNBOUNDED = 2**16

P = ParamSpec("P")
T = TypeVar("T")


def reachable(method: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Turn whatever the server, or the way to it, says into StoreUnavailable, and heed a cancellation that was lost.

    A server that restarts, fails over, loads, lacks replicas, or cannot write says so in two dozen ways. None of them
    is the fault of what was asked, which will be asked again.

    Before Python 3.12, `asyncio.wait_for`, with which the library sends, swallows a cancellation that comes as the
    sending ends.
    """

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        task = asyncio.current_task()
        asked = task.cancelling() if task else 0
        try:
            result = await method(*args, **kwargs)
        except failures.DataError:  # what was to be sent is no data: ours to mend
            raise
        except (failures.RedisError, OSError) as error:
            if isinstance(error, _ELSEWHERE) and isinstance(args[0], Connection):
                await args[0].leave_server()
            raise _unavailable(error) from error
        if task and task.cancelling() > asked:
            raise asyncio.CancelledError
        return result

    return call


#: Of a server that is the primary no more: the address may lead to another by now, the open connections do not.
_ELSEWHERE = (failures.ReadOnlyError, failures.MovedError, failures.MasterDownError)


def _unavailable(error: Exception) -> StoreUnavailable:
    text = str(error)
    if isinstance(error, failures.OutOfMemoryError):
        return StoreFull("memory", text)
    if "MISCONF" in text or "No space left" in text:
        return StoreFull("disk", text)
    return StoreUnavailable(f"Redis does not serve: {text or type(error).__name__}")


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
            url: of the server, or of its sentinels, see `client_of`.
            settings: see the class.
            connections: of so many, a call waits for one to be free: for a process with thousands of short calls at
                once, which Redis would refuse. None opens as many as there are calls, some of which wait for seconds.
        """
        return cls(client_of(url, connections=connections), settings)

    @reachable
    async def check_room(self) -> None:
        """Return if there is room for new jobs.

        Raises:
            StoreFull: whoever runs the store says that there is none.
        """
        if what := await cast(Awaitable[bytes | None], self.redis.get(self.keys.tight)):
            raise StoreFull(what.decode(), "it is kept for the jobs there are")

    async def leave_server(self) -> None:
        """Close all connections, so that the next calls go to whom the address means by now."""
        await self.redis.connection_pool.disconnect()

    @reachable
    async def check(self) -> None:
        """Return if the server keeps what it is given.

        Raises:
            StoreForgets: once its memory is full, it would drop keys.
        """
        memory = await self.redis.info("memory")
        policy = str(memory.get("maxmemory_policy", "noeviction"))
        if int(memory.get("maxmemory", 0)) and policy != "noeviction":
            raise StoreForgets(policy)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.redis.aclose()

    @reachable
    async def ping(self) -> None:
        """Return when Redis answers."""
        await cast(Awaitable[Any], self.redis.ping())


def client_of(url: str, *, connections: int | None = None) -> Redis:
    """A client of the server at an address.

    Args:
        url: `redis://`, `rediss://`, `unix://`, or `redis+sentinel://HOST[:PORT],.../NAME[/DB]`, which asks sentinels
            where the primary NAME is.
        connections: see `Connection.from_url`.

    Raises:
        ValueError: the address is none of these.
    """
    options: dict[str, Any] = {
        "socket_timeout": _SOCKET_TIMEOUT,
        "socket_connect_timeout": _CONNECT_TIMEOUT,
        "retry": Retry(ExponentialBackoff(cap=0.4, base=0.05), 3, supported_errors=(failures.ConnectionError,)),
        "health_check_interval": 30,
    }
    if (watched := sentinels_of(url)) is not None:
        sentinels: Any = Sentinel(watched.hosts, sentinel_kwargs=watched.login | options, **options)
        return cast(Redis, sentinels.master_for(watched.name, db=watched.db, **watched.login))
    if connections is None:
        return Redis.from_url(url, max_connections=UNBOUNDED, **options)
    pool = BlockingConnectionPool.from_url(url, max_connections=connections, timeout=None, **options)
    return Redis.from_pool(pool)
