"""The gateway as a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import pytest

from sitsearch.workers.jobs.store import JobStore
from tests.service.gateway.conftest import OFFER, body


def environment(url: str, prefix: str, port: int) -> dict[str, str]:
    settings = {"REDIS_URL": url, "KEY_PREFIX": prefix, "PORT": str(port)}
    return os.environ | {f"SITSEARCH_{name}": value for name, value in settings.items()}


def start(store: JobStore, url: str, port: int) -> subprocess.Popen[bytes]:
    env = environment(url, store.settings.key_prefix, port)
    process = subprocess.Popen([sys.executable, "-m", "sitsearch.service.gateway"], env=env)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False)
            return process
        except httpx.TransportError:
            time.sleep(0.05)
    raise AssertionError("the gateway did not start")


@pytest.fixture
def port() -> Iterator[int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    yield number


def test_the_gateway_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys; from sitsearch.service.gateway.app import create_app; "
        "from sitsearch.workers.settings import Settings; "
        "create_app(Settings(_env_file=None, redis_url='redis://127.0.0.1:1')); "
        "print([name for name in ('torch', 'ray', 'numpy', 'sitsearch.models') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_without_a_store_it_says_what_is_missing(tmp_path: object) -> None:
    env = {name: value for name, value in os.environ.items() if name != "SITSEARCH_REDIS_URL"}
    result = subprocess.run(
        [sys.executable, "-m", "sitsearch.service.gateway"], env=env, capture_output=True, text=True
    )
    assert result.returncode == 2
    assert "SITSEARCH_REDIS_URL" in result.stderr and "Traceback" not in result.stderr


async def test_a_killed_gateway_loses_no_job_and_a_new_one_knows_its_keys(
    store: JobStore, valkey_url: str, port: int
) -> None:
    headers = {"Idempotency-Key": "k"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        first = start(store, valkey_url, port)
        try:
            await store.publish_offer(OFFER)
            job = client.post("/generate", json=body(), headers=headers).json()
        finally:
            first.kill()
            first.wait()
        second = start(store, valkey_url, port)
        try:
            await store.publish_offer(OFFER)
            assert client.get(job["links"]["self"]).json() == job
            again = client.post("/generate", json=body(), headers=headers)
            assert (again.status_code, again.json()) == (200, job)
        finally:
            second.kill()
            second.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_at_once_though_clients_wait(
    store: JobStore, valkey_url: str, port: int, number: signal.Signals
) -> None:
    process = start(store, valkey_url, port)
    try:
        await store.publish_offer(OFFER)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            job = (await client.post("/generate", json=body())).json()
            async with client.stream("GET", job["links"]["events"]) as events:
                lines = events.aiter_lines()
                while await anext(lines) != "event: job":
                    pass
                begin = time.monotonic()
                process.send_signal(number)
                async for _ in lines:
                    pass
        assert process.wait(10) is not None
        assert time.monotonic() - begin < 5
    finally:
        process.kill()
        process.wait()
