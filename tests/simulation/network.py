"""Processes that live, stall and die, and the way between them and the store."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

from tests.simulation.clock import VirtualLoop

T = TypeVar("T")

#: Mean of a way to the store, in seconds.
LATENCY = 0.002
#: What the store's scripts ask for the time, and what they ask here.
TIME = "local now = redis.call('TIME')\n  return now[1] * 1000 + math.floor(now[2] / 1000)"
VIRTUAL = "return tonumber(redis.call('GET', 'virtual:now'))"
#: Of a write: it does not arrive, or its answer does not; its process dies before, or after it.
FATES = ("lost", "unanswered", "killed before", "killed after")
#: Scripts that tell nobody anything new.
QUIET = ("-- Heartbeat", "-- The job that is to be claimed next", "-- Jobs of each status")


class World:
    """What all processes share: time, chance, and what happened.

    Attributes:
        loop, draw: the clock and the source of all chance.
        lost, twice: how likely it is that a call or its answer is lost, and that a call arrives twice.
        disturbances: faults after which something may have to be computed again.
        fate: asked of every write of a coordinator, by its number, what becomes of it: one of `FATES`, or None.
        story: what happened, `(seconds, text)`.
    """

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.loop, self.draw = loop, random.Random(seed)
        self.lost = self.twice = 0.0
        self.disturbances = 0
        self.story: list[tuple[float, str]] = []
        self.fate: Callable[[int], str | None] = lambda number: None
        self.writes = 0
        self._began = loop.now

    def tell(self, text: str) -> None:
        """Note what happens."""
        self.story.append((self.loop.now - self._began, text))


class Server:
    """The one Valkey, behind a client that answers at once.

    Attributes:
        down_until: it refuses connections until then.
        keeps: whether what it loses by a restart is to be known.
    """

    def __init__(self, client: Redis, world: World) -> None:
        self.client, self.world = client, world
        self.down_until, self.keeps = 0.0, False
        self._disk: dict[bytes, tuple[bytes, int]] = {}
        self._news: asyncio.Future[None] | None = None
        client.flushdb()

    def carry_out(self, call: Callable[[], T], *, news: bool = True, clock: bool = False) -> T:
        """Do what a client asks; `clock` if it may look at the time.

        Raises:
            redis.exceptions.ConnectionError: the server is down.
        """
        if self.world.loop.now < self.down_until:
            raise RedisConnectionError("connection refused")
        if clock:
            self.client.set("virtual:now", int(self.world.loop.now * 1000))
        answer = call()
        if news and self._news is not None and not self._news.done():
            self._news.set_result(None)
        return answer

    async def news(self, seconds: float) -> None:
        """Return when something was written, or the time is over."""
        if self._news is None or self._news.done():
            self._news = self.world.loop.create_future()
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._news), seconds)

    def sync(self) -> None:
        """What is there now is on disk."""
        if self.keeps:
            keys = self.client.keys("*")
            self._disk = {key: (self.client.dump(key), self.client.pttl(key)) for key in keys}  # type: ignore[misc]

    def restart(self, seconds: float) -> None:
        """End, and be there again after some seconds with what was on disk."""
        self.down_until = self.world.loop.now + seconds
        self.client.flushdb()
        for key, (value, ttl) in self._disk.items():
            self.client.restore(key, max(0, ttl), value)


class Process:
    """A process with a connection to the store.

    Attributes:
        alive: a process that is not never hears from anything again.
        stalled_until, cut_until: it stands still, or has no connection, until then.
        killed: called when it dies by itself.
    """

    def __init__(self, name: str, world: World, server: Server) -> None:
        self.name, self.world, self.server = name, world, server
        self.alive, self.stalled_until, self.cut_until = True, 0.0, 0.0
        self.killed: Callable[[], None] = lambda: None

    async def leg(self) -> None:
        """One way over the network."""
        await asyncio.sleep(self.world.draw.expovariate(1 / LATENCY))
        while (left := self.stalled_until - self.world.loop.now) > 0:
            await asyncio.sleep(left)
        if not self.alive:
            await asyncio.Event().wait()

    async def die(self) -> None:
        """End here and now."""
        self.killed()
        await asyncio.Event().wait()

    async def ask(self, call: Callable[[], T], *, news: bool = True, clock: bool = False) -> T:
        """A call of the store: there, carried out, and back; it may be lost on either way, or arrive twice.

        Raises:
            redis.exceptions.ConnectionError: it was, or there is no connection.
        """
        await self.leg()
        special = None
        if news and self.name.startswith("coordinator"):
            self.world.writes += 1
            special = self.world.fate(self.world.writes)
        if special == "killed before":
            await self.die()
        fate, lost = self.world.draw.random(), self.world.lost
        if fate < lost or special == "lost" or self.world.loop.now < self.cut_until:
            raise RedisConnectionError("connection lost")
        answer = self.server.carry_out(call, news=news, clock=clock)
        if fate < lost + self.world.twice:
            answer = self.server.carry_out(call, news=news, clock=clock)
        if special == "killed after":
            await self.die()
        await self.leg()
        if fate > 1 - lost or special == "unanswered" or self.world.loop.now < self.cut_until:
            raise RedisConnectionError("the answer was lost")
        return answer


class SimulatedRedis:
    """What the store takes for `redis.asyncio.Redis`, in one process."""

    def __init__(self, process: Process) -> None:
        self.process, self.client = process, process.server.client
        self.connection_pool = self

    async def disconnect(self) -> None:
        """There are no connections to close."""

    async def aclose(self) -> None:
        """See `disconnect`."""

    def register_script(self, text: str) -> Any:
        """A script, by the virtual clock."""
        script = self.client.register_script(text.replace(TIME, VIRTUAL))
        news, clock = not any(sign in text for sign in QUIET), TIME in text

        async def run(*, keys: list[Any], args: list[Any], client: SimulatedPipeline | None = None) -> Any:
            if client is not None:
                return script(keys=keys, args=args, client=client.pipe)
            return await self.process.ask(lambda: script(keys=keys, args=args), news=news, clock=clock)

        return run

    def pipeline(self, transaction: bool = True) -> SimulatedPipeline:
        """Calls that go together."""
        return SimulatedPipeline(self.process, transaction)

    async def xread(self, streams: Any, count: int | None = None, block: int | None = None) -> Any:
        """Entries of streams, waited for if there are none."""
        until = self.process.world.loop.now + (block or 0) / 1000
        while True:
            found = await self.process.ask(lambda: self.client.xread(streams, count=count), news=False)
            left = until - self.process.world.loop.now
            if found or left <= 0:
                return found
            await self.process.server.news(left)

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)

        async def run(*args: Any, **options: Any) -> Any:
            return await self.process.ask(lambda: call(*args, **options), news=False)

        return run


class SimulatedPipeline:
    """What the store takes for a pipeline."""

    def __init__(self, process: Process, transaction: bool) -> None:
        self.process, self.to_disk, self._calls = process, False, list[tuple[str, tuple[Any, ...], dict[str, Any]]]()
        self.pipe: Pipeline = process.server.client.pipeline(transaction=transaction)

    async def __aenter__(self) -> SimulatedPipeline:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.pipe.reset()

    def execute_command(self, name: str, *args: Any) -> None:
        """The only one that is asked for by name says when all is on disk."""
        assert name == "WAITAOF"
        self.to_disk = True

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Carry out what was asked for; it is on disk if that was asked for too."""
        stack, scripts = [*self.pipe.command_stack], {*self.pipe.scripts}

        def carry_out() -> list[Any]:
            self.pipe.command_stack, self.pipe.scripts = [*stack], {*scripts}
            answers: list[Any] = self.pipe.execute(raise_on_error=raise_on_error)
            if self.to_disk:
                self.process.server.sync()
                answers.append([1, 0])
            return answers

        return await self.process.ask(carry_out, news=self.to_disk, clock=bool(scripts))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.pipe, name)
