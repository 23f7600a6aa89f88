"""The service on virtual time: gateways, coordinators that come and go, and a client that does not give up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any
from unittest import mock

import httpx
from fastapi import FastAPI

from sitsearch.service.gateway.app import create_app
from sitsearch.service.gateway.metrics import HttpMetrics
from sitsearch.service.gateway.routes import Context
from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, StoreUnavailable
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.jobs.store import queue as queue_module
from sitsearch.workers.jobs.store.heartbeat import PER_LEASE, TRIES
from sitsearch.workers.serving import coordinator as coordinator_module
from sitsearch.workers.serving.coordinator import Coordinator
from sitsearch.workers.settings import Settings
from tests.simulation.network import Process, Server, SimulatedRedis, World
from tests.simulation.pools import Sampler, Verifier

SETTINGS = Settings(_env_file=None, redis_url="redis://simulated", lease=15.0, offer_ttl=15.0, jobs_per_coordinator=4)  # type: ignore[call-arg]


class Beat:
    """`Heartbeat` as a task of its process."""

    def __init__(self, process: Process, refused: Callable[[Claim, LeaseLost | JobCanceled], object]) -> None:
        self._store, self._refused = store_of(process), refused
        self._held: dict[str, Claim] = {}
        self._task = asyncio.ensure_future(self._beat())

    @property
    def alive(self) -> bool:
        return not self._task.done()

    def hold(self, claim: Claim) -> None:
        self._held[claim.token] = claim

    def let_go(self, claim: Claim) -> None:
        self._held.pop(claim.token, None)

    def stop(self) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        pause = SETTINGS.lease / PER_LEASE
        while True:
            await asyncio.sleep(pause)
            held = [*self._held.values()]
            try:
                refusals = await self._store.renew(held) if held else []
                pause = SETTINGS.lease / PER_LEASE
            except StoreUnavailable:
                pause = SETTINGS.lease / TRIES
                continue
            for claim, refusal in zip(held, refusals, strict=True):
                if refusal is not None and claim.token in self._held:
                    self.let_go(claim)
                    self._refused(claim, refusal)


@cache
def _app() -> FastAPI:
    """The gateway's application, whose context is set for each gateway."""
    return create_app(SETTINGS, store=mock.create_autospec(JobStore))


def store_of(process: Process) -> JobStore:
    """The store as a process reaches it."""
    return JobStore(SimulatedRedis(process), SETTINGS)  # type: ignore[arg-type]


class Service:
    """Coordinators over pools, and gateways, each a process.

    Args:
        world, server: what they share.
        coordinators: how many there are meant to be.

    Attributes:
        probe: the store, as who checks it reaches it.
    """

    def __init__(self, world: World, server: Server, coordinators: int) -> None:
        self.world, self.server = world, server
        self.sampler, self.verifier = Sampler(world), Verifier(world)
        self.running: list[tuple[Process, Coordinator]] = []
        self._background: list[asyncio.Task[None]] = []
        self._count = 0
        for _ in range(coordinators):
            self.start()
        self.probe = store_of(Process("probe", world, server))
        self._app = _app()
        self.open_gateway()

    def open_gateway(self) -> None:
        """Have a gateway, another one than before."""
        self.gateway = Process("gateway", self.world, self.server)
        context = Context(SETTINGS, store_of(self.gateway), HttpMetrics(), asyncio.Event())
        self._app.state.context = context
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://gateway")

    def start(self) -> None:
        """Start one more coordinator."""
        self._count += 1
        process = Process(f"coordinator-{self._count}", self.world, self.server)
        with (
            mock.patch.object(JobStore, "from_url", lambda *_, **__: store_of(process)),
            mock.patch.object(coordinator_module, "Heartbeat", lambda _url, _settings, refused: Beat(process, refused)),
        ):
            pools: Any = ({"glyphs": self.sampler}, {"classifier": self.verifier})
            coordinator = Coordinator(SETTINGS.model_dump(mode="json"), *pools)
        coordinator.name = process.name
        self.running.append((process, coordinator))
        process.killed = lambda: self.replace(process)

    def kill(self, place: int) -> None:
        """End a coordinator as SIGKILL does: nothing that it has under way comes to an end."""
        process, coordinator = self.running.pop(place)
        process.alive = False
        self.world.disturbances += 1
        coordinator.stop()

    def replace(self, process: Process) -> None:
        """Kill a coordinator, and start another."""
        self.kill(next(place for place, (one, _) in enumerate(self.running) if one is process))
        self.start()

    async def drain(self, place: int) -> None:
        """End a coordinator as SIGTERM does."""
        _, coordinator = self.running.pop(place)
        await coordinator.drain()
        coordinator.stop()

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something happen beside all else."""
        self._background.append(asyncio.ensure_future(work))

    async def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """What the service answers in the end: a client whose call fails makes it again."""
        while True:
            with suppress(httpx.TransportError, TimeoutError):
                answer = await asyncio.wait_for(self.http.request(method, path, **options), 30)
                if answer.status_code not in (409, 503, 507, 500):
                    return answer
                if answer.status_code == 409:
                    return answer
                assert answer.status_code != 500, answer.text
            await asyncio.sleep(self.world.draw.uniform(0.2, 2))

    async def end(self) -> None:
        """Stop everything."""
        tasks = [task for _, coordinator in self.running for task in coordinator.stop()]
        for task in self._background:
            task.cancel()
        await asyncio.gather(*tasks, *self._background, return_exceptions=True)


@contextmanager
def seeded(world: World) -> Iterator[None]:
    """Tokens are drawn from the world's chance, so that a seed is one course of events."""
    with mock.patch.object(queue_module.secrets, "token_hex", lambda n: f"{world.draw.getrandbits(8 * n):0{2 * n}x}"):
        yield
