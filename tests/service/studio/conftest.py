"""The studio in a real browser, over a real gateway, store and coordinator; the samplers paint instead of sampling."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from bench.stub_pools import StubSampler, StubVerifier
from sitsearch.service.cli.supervisor import free_port
from sitsearch.service.gateway.app import create_app
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.serving.coordinator import Coordinator
from sitsearch.workers.settings import Settings

AXE = (Path(__file__).parent / "axe.min.js").read_text()
SIZE = 32

T = TypeVar("T")


def disc(recipe: Recipe) -> np.ndarray:
    """A disc on white whose place and colour are those of its noise, and near those of a neighbouring noise."""
    point = _unit(f"{recipe.seed} {recipe.round} {recipe.index}")
    for op in recipe.noise.ops:
        point = 0.8 * point + 0.2 * _unit(op.model_dump_json())
    rows, columns = np.mgrid[:SIZE, :SIZE]
    inside = (rows - 8 - 16 * point[0]) ** 2 + (columns - 8 - 16 * point[1]) ** 2 < (4 + 6 * point[2]) ** 2
    image = np.full((SIZE, SIZE, 3), 250, np.uint8)
    image[inside] = (255 * point[3], 255 * point[4], 255 * point[5])
    return image


def _unit(text: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:6], np.uint8) / 255


class Painter(StubSampler):
    """Draws discs, each call in `pause` seconds."""

    def __init__(self) -> None:
        gate = asyncio.Event()
        gate.set()
        super().__init__(gate)
        self.pause = 0.0

    async def _sample(
        self, job: str, orders: Sequence[Order], priority: float, lent: Sequence[np.ndarray | None] | None = None
    ) -> Made[np.ndarray]:
        await asyncio.sleep(self.pause)
        return await super()._sample(job, orders, priority)

    def draw(self, orders: Sequence[Order]) -> np.ndarray:
        return np.stack([disc(order.recipe) for order in orders])


class Red(StubVerifier):
    """Likes red, or as an auditor dark."""

    def judge(self, images: np.ndarray) -> list[float]:
        wide = images.astype(float) / 255
        red, dark = (wide[..., 0] - wide[..., 1:].mean(-1)).mean((1, 2)), 1 - wide.mean((1, 2, 3))
        return [round(float(value), 6) for value in (dark if self.name == "auditor" else red)]


class Studio:
    """A service without Ray: its gateway can be restarted, its painter slowed down.

    Args:
        settings: of the deployment.
        wrap: put around the gateway's application, as a proxy would be.
        works: there is a coordinator.
    """

    def __init__(self, settings: Settings, wrap: Callable[[Any], Any] = lambda app: app, *, works: bool = True) -> None:
        self.settings, self.wrap, self.port = settings, wrap, free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self.painter: Painter
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._coordinator = self.run(self._coordinate()) if works else None
        self.start()

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        """What a coroutine comes to, in the loop of the service."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    async def _coordinate(self) -> Coordinator:
        self.painter = Painter()
        verifiers: dict[str, Any] = {name: Red(name) for name in ("classifier", "auditor")}
        samplers: dict[str, Any] = {"glyphs": self.painter}
        return Coordinator(self.settings.model_dump(mode="json"), samplers, verifiers)

    def start(self) -> None:
        """Start the gateway."""
        app = self.wrap(create_app(self.settings))
        config = uvicorn.Config(app, "127.0.0.1", self.port, log_level="warning", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._serving = threading.Thread(target=self._server.run)
        self._serving.start()
        while not self._server.started:
            assert self._serving.is_alive()
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop the gateway, open streams included."""
        self._server.force_exit = self._server.should_exit = True
        self._serving.join()

    def close(self) -> None:
        """Stop everything."""
        self.stop()

        async def end(coordinator: Coordinator) -> None:
            await asyncio.gather(*coordinator.stop(), return_exceptions=True)
            await coordinator.store.aclose()

        if self._coordinator is not None:
            self.run(end(self._coordinator))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def get(self, path: str, **options: Any) -> Any:
        """What the gateway answers."""
        return httpx.get(self.url + path, trust_env=False, **options).json()


def settings_of(valkey_url: str) -> Settings:
    """Settings with a key prefix of their own."""
    return Settings(_env_file=None, redis_url=valkey_url, key_prefix=f"studio-{uuid.uuid4().hex}")


@pytest.fixture(scope="module")
def studio(valkey_url: str) -> Iterator[Studio]:
    running = Studio(settings_of(valkey_url))
    while "models" not in running.get("/models"):
        time.sleep(0.05)
    yield running
    running.close()


@pytest.fixture(scope="module")  # while it is open, no other event loop can run in this thread
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page; it fails the test if anything was written to its console as an error."""
    context = browser.new_context(viewport={"width": 1280, "height": 2400})
    opened, errors = context.new_page(), list[str]()
    opened.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.set_default_timeout(20_000)
    opened.errors = errors  # type: ignore[attr-defined]
    yield opened
    context.close()
    unexpected = [text for text in errors if not text.startswith("Failed to load resource")]  # of refusals and drops
    assert unexpected == []


def violations(page: Page) -> list[str]:
    """What axe finds on the page that is serious or critical."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:160]} {one['nodes'][0].get('failureSummary', '')[:200]}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
    ]
