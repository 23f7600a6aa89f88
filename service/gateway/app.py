"""The gateway's application factory."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from sitsearch.service import studio
from sitsearch.service.gateway import gallery, problems
from sitsearch.service.gateway.metrics import HttpMetrics, MetricsMiddleware
from sitsearch.service.gateway.planning import ExtendRequest
from sitsearch.service.gateway.routes import Context, router
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings

_DESCRIPTION = "Spends inference-time compute on finding better noise for flow models. Clients follow `links`."


class NotConfigured(ValueError):
    """A setting that the gateway needs is absent."""


def create_app(settings: Settings, *, store: JobStore | None = None) -> FastAPI:
    """The gateway.

    Args:
        settings: the settings.
        store: the job store; without one, that of `settings.redis_url`, closed with the application.

    Raises:
        NotConfigured: there is neither a store nor a `redis_url`.
    """
    if store is None and settings.redis_url is None:
        raise NotConfigured("the gateway needs SITSEARCH_REDIS_URL (`sitsearch serve` starts a store by itself)")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        used = store or JobStore.from_url(str(settings.redis_url), settings)
        stopping = asyncio.Event()
        app.state.context = Context(settings, used, metrics, stopping)
        loop = asyncio.get_running_loop()
        with _on_stop_signal(lambda: loop.call_soon_threadsafe(stopping.set)):
            yield
        if store is None:
            await used.aclose()

    metrics = HttpMetrics()
    app = FastAPI(
        title="sitsearch",
        description=_DESCRIPTION,
        version="0.1.0",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
        responses={
            "default": {"description": "A problem (RFC 9457)", "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
        },
    )
    app.include_router(router)
    app.include_router(gallery.router)
    studio.install(app)
    app.add_middleware(MetricsMiddleware, metrics=metrics)
    problems.install(app)
    _document_body(app)
    return app


@contextmanager
def _on_stop_signal(action: Callable[[], Any]) -> Iterator[None]:
    """Call `action` on SIGTERM and SIGINT, before the server's own handler.

    The server waits for open answers before it ends the application's life, so these must learn of it earlier.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: FrameType | None) -> None:
        action()
        following = before[signal.Signals(number)]
        if callable(following):
            following(number, frame)

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_REF = "#/components/schemas/{model}"
_BODIES: dict[str, type[BaseModel]] = {
    "GenerateBody": GenerateRequest,
    "ExtendBody": ExtendRequest,
    "ProblemBody": problems.ProblemBody,
}
_PROBLEM = {"$ref": _REF.format(model="ProblemBody")}


def _document_body(app: FastAPI) -> None:
    """Describe the bodies that the framework does not parse itself."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        schema = generated()
        known = schema["components"]["schemas"]
        for name, model in _BODIES.items():
            described = model.model_json_schema(ref_template=_REF)
            for part, definition in described.pop("$defs", {}).items():
                known.setdefault(part, definition)
            known[name] = described
        return schema

    app.openapi = openapi  # type: ignore[method-assign]
