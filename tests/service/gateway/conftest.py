"""A real gateway on a socket, in a thread, over the test's own part of a real Valkey."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
import uvicorn

from sitsearch.service.gateway.app import create_app
from sitsearch.workers.jobs.offer import ModelOffer, Offer, SamplerOffer, VerifierOffer
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.registry import algorithm_offers
from sitsearch.workers.settings import Settings

LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
OFFER = Offer(
    models=(
        ModelOffer(
            name="glyphs",
            title="Letters",
            classes=LETTERS,
            image_size=32,
            parameters=1,
            macs_per_forward=1,
            samplers=(
                SamplerOffer(name="euler", evaluations_per_step=1),
                SamplerOffer(name="heun", evaluations_per_step=2),
                SamplerOffer(name="euler_maruyama", evaluations_per_step=1, stochastic=True),
            ),
            default_sampler=SamplerChoice(method="heun", steps=20, guidance=1.5),
            license="Apache-2.0",
            forwards_per_second=500.0,
        ),
        ModelOffer(
            name="free",
            title="Unconditional",
            classes=(),
            image_size=32,
            parameters=1,
            macs_per_forward=1,
            samplers=(SamplerOffer(name="euler", evaluations_per_step=1),),
            default_sampler=SamplerChoice(method="euler", steps=10, guidance=1.0),
            license="Apache-2.0",
        ),
    ),
    verifiers=(
        VerifierOffer(name="classifier", title="Class", needs=("class",), models=("glyphs", "free")),
        VerifierOffer(name="aesthetic", title="Looks", needs=(), models=("glyphs", "free")),
        VerifierOffer(name="fid", title="Sets", needs=(), models=("glyphs",), sets=True),
        VerifierOffer(name="alignment", title="Text", needs=("prompt",), models=("free",)),
        VerifierOffer(name="other", title="Of another model", needs=(), models=("faces",)),
    ),
    algorithms=algorithm_offers(),
    deterministic=True,
)


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The address of a gateway with these settings, for as long as the context lasts."""
    config = uvicorn.Config(
        create_app(settings), host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def body(**fields: Any) -> dict[str, Any]:
    """A request that is accepted, but for `fields`."""
    request = {
        "model": "glyphs",
        "condition": {"class": "Q"},
        "budget": {"nfe": 400},
        "verifier": "classifier",
        "search": "random",
    }
    return request | fields


@pytest.fixture
def gateway_settings(store_settings: Settings) -> Settings:
    """The settings of the gateway under test."""
    return store_settings


@pytest.fixture
async def http(store: JobStore, gateway_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running gateway whose workers have published their offer."""
    await store.publish_offer(OFFER)
    with serving(gateway_settings) as url:
        async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
            yield client


def problem(response: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    """The problem in `response`, which must be of this status and type."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    content: dict[str, Any] = response.json()
    assert (response.status_code, content["status"]) == (status, status), content
    assert content["type"] == f"urn:sitsearch:problem:{slug}", content
    assert content["title"] and content["detail"]
    return content
