"""A real sentinel, a primary and its replica, and a failover between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from sitsearch.workers.jobs.embedded import _binary
from sitsearch.workers.jobs.errors import LeaseLost, StoreUnavailable
from sitsearch.workers.jobs.processes import die_with_parent
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.jobs.store.heartbeat import Heartbeat
from sitsearch.workers.serving.patience import patiently
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import claimed, log_round, logged_rounds, make_job


@pytest.fixture
def sentinel(tmp_path: Path) -> Iterator[int]:
    """The port of a sentinel that watches `main`."""
    ports = _free_ports(3)
    common = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1"]
    commands = [
        ["--port", str(ports[0]), *common],
        ["--port", str(ports[1]), *common, "--replicaof", f"127.0.0.1 {ports[0]}", "--repl-diskless-sync-delay", "0"],
    ]
    conf = tmp_path / "sentinel.conf"
    conf.write_text(
        f"port {ports[2]}\nbind 127.0.0.1\nsentinel monitor main 127.0.0.1 {ports[0]} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 5000\n"
    )
    commands.append([str(conf), "--sentinel"])
    with contextlib.ExitStack() as stack:
        for number, command in enumerate(commands):
            folder = tmp_path / str(number)
            folder.mkdir()
            log = stack.enter_context((folder / "log").open("wb"))
            process = subprocess.Popen(
                [str(_binary()), *command], cwd=folder, stdout=log, stderr=log, preexec_fn=die_with_parent
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
        with Redis(port=ports[2]) as client:
            _until(lambda: int(client.sentinel_master("main")["num-slaves"]) == 1)
            with Redis(port=ports[1]) as replica:
                _until(lambda: replica.info("replication")["master_link_status"] == "up")
            yield ports[2]


async def test_jobs_go_on_after_a_failover(sentinel: int) -> None:
    url = f"redis+sentinel://127.0.0.1:{sentinel}/main"
    settings = Settings(_env_file=None, lease=2.0)
    store = JobStore.from_url(url, settings)
    claim = await claimed(store)
    await log_round(store, claim, 0)
    refused: list[tuple[Claim, Exception]] = []
    beat = Heartbeat(url, settings, lambda claim, why: refused.append((claim, why)))
    beat.hold(claim)
    with Redis(port=sentinel) as client:
        before = client.sentinel_get_master_addr_by_name("main")
        client.sentinel_failover("main")
        deadline = time.monotonic() + 20
        while client.sentinel_get_master_addr_by_name("main") == before:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
    await asyncio.wait_for(patiently(lambda: log_round(store, claim, 1), "a round"), 20)
    await asyncio.wait_for(patiently(lambda: store.submit(make_job()), "a job"), 20)
    assert len(await logged_rounds(store, claim.job.id)) == 2
    await asyncio.sleep(2.5)  # longer than the lease
    assert not refused and await store.renew([claim]) == [None], "the lease was kept on the new primary"
    beat.stop()
    await store.aclose()


async def test_the_heartbeat_tells_of_a_lease_that_was_taken(store: JobStore, store_settings: Settings) -> None:
    refused: list[Exception] = []
    assert store_settings.redis_url is not None
    beat = Heartbeat(store_settings.redis_url, store_settings, lambda _, why: refused.append(why))
    claim = await claimed(store)
    beat.hold(claim)
    time.sleep(1.0)  # the event loop stands still for three leases: nobody can take the job meanwhile
    assert await store.claim("b", block=0.05) is None and not refused
    await store.redis.hset(store.keys.job(claim.job.id), "token", "another's")  # type: ignore[misc]
    await asyncio.sleep(0.4)
    assert [type(why) for why in refused] == [LeaseLost]
    beat.stop()


async def test_sentinels_that_are_away_are_a_store_that_is_away() -> None:
    store = JobStore.from_url("redis+sentinel://127.0.0.1:1/main", Settings(_env_file=None))
    with pytest.raises(StoreUnavailable):
        await store.ping()
    await store.aclose()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _until(holds) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(Exception):
            if holds():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)
