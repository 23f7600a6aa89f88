"""What a sick server says, what it forgets, and what another version has written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.errors import StoreForgets, StoreFull, StoreUnavailable, UnreadableRecord
from sitsearch.workers.jobs.job import Extension, JobError, Status, Usage
from sitsearch.workers.jobs.logged import logged, pack, unpack
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.sentinels import sentinels_of
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import claimed, log_round, make_job, make_result, make_round, succeeded


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Redis, str]]:
    """A server of a test's own, to make sick."""
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        yield client, valkey.url


async def test_a_server_that_lacks_replicas_is_away_for_writes(server: tuple[Redis, str]) -> None:
    client, url = server
    store = JobStore.from_url(url, Settings(_env_file=None))
    client.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailable, match="NOREPLICAS"):
        await store.submit(make_job())
    client.config_set("min-replicas-to-write", 0)
    assert await store.claim("a", block=0) is None
    await store.submit(make_job())
    await store.aclose()


async def test_a_server_that_becomes_a_replica_is_left(server: tuple[Redis, str]) -> None:
    """Who waits is woken with an error, who writes is refused; and all goes on once it is the primary again."""
    client, url = server
    store = JobStore.from_url(url, Settings(_env_file=None))
    waiting = asyncio.create_task(store.claim("a", block=3))
    await asyncio.sleep(0.2)
    client.execute_command("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(StoreUnavailable):
        await store.submit(make_job())
    with pytest.raises(StoreUnavailable):
        await waiting
    client.execute_command("REPLICAOF", "NO", "ONE")
    await store.submit(job := make_job())
    claim = await store.claim("a", block=0.1)
    assert claim is not None and claim.job.id == job.id
    await store.aclose()


async def test_a_full_memory_lets_jobs_end(server: tuple[Redis, str]) -> None:
    client, url = server
    store = JobStore.from_url(url, Settings(_env_file=None))
    done, waiting, running = await claimed(store), make_job(), None
    await store.submit(waiting)
    running = await claimed(store)
    client.config_set("maxmemory", 1)
    for refused in (store.submit(make_job()), log_round(store, running, 0)):
        with pytest.raises(StoreFull) as full:
            await refused
        assert full.value.what == "memory"
    assert (await store.renew([running])) == [None]
    await store.finish(done, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    for job_id in (waiting.id, running.job.id):
        canceled = await store.cancel(job_id)
        assert canceled is not None and canceled.status is Status.CANCELED
    client.config_set("maxmemory", 0)
    await store.submit(make_job())
    await store.aclose()


async def test_a_server_that_would_forget_is_refused(server: tuple[Redis, str]) -> None:
    client, url = server
    store = JobStore.from_url(url, Settings(_env_file=None))
    await store.check()
    client.config_set("maxmemory-policy", "volatile-lru")
    await store.check()  # without a limit nothing is forgotten
    client.config_set("maxmemory", 2**30)
    with pytest.raises(StoreForgets, match="noeviction"):
        await store.check()
    await store.aclose()


async def test_what_a_later_version_adds_is_passed_over_and_stays(store: JobStore) -> None:
    await store.submit(job := make_job())
    key = store.keys.job(job.id)
    request = json.loads(await store.redis.hget(key, "request"))  # type: ignore[misc]
    request["later"], request["budget"]["later"] = 1, {"x": 2}
    await store.redis.hset(key, mapping={"request": json.dumps(request), "new": "7", "schema": "99"})  # type: ignore[misc]
    claim = await store.claim("a", block=0)
    assert claim is not None and claim.job.request == job.request
    await log_round(store, claim, 0)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    kept = json.loads(await store.redis.hget(key, "request"))  # type: ignore[misc]
    assert kept == request and await store.redis.hget(key, "new") == b"7"  # type: ignore[misc]


async def test_a_record_that_cannot_be_read_ends_that_job_alone(store: JobStore) -> None:
    await store.submit(spoilt := make_job())
    await store.submit(other := make_job())
    await store.redis.hset(store.keys.job(spoilt.id), "request", '{"condition": 7}')  # type: ignore[misc]
    claim = await store.claim("a", block=0)
    assert claim is not None and claim.job.id == other.id
    fields = await store.redis.hgetall(store.keys.job(spoilt.id))  # type: ignore[misc]
    assert fields[b"status"] == b"failed" and b"unreadable-record" in fields[b"error"]
    with pytest.raises(UnreadableRecord, match=spoilt.id):
        await store.get(spoilt.id)
    assert [snapshot.job.id for snapshot in (await store.page())[0]] == [other.id]
    assert await store.claim("a", block=0) is None


async def test_an_offer_of_another_version_is_read_as_far_as_it_is_known(store: JobStore) -> None:
    await store.redis.set(
        store.keys.offer, '{"models": [], "verifiers": [], "algorithms": [], "deterministic": true, "later": 1}'
    )
    assert await store.offer() is not None
    await store.redis.set(store.keys.offer, '{"models": 7}')
    assert await store.offer() is None


async def test_an_answer_stays_when_going_on_fails(store: JobStore) -> None:
    job = await succeeded(store)
    await store.cancel(job.id)  # an ended job stays as it is
    await store.extend(job, Extension(after_round=1, nfe=400))
    claim = await store.claim("a", block=0)
    assert claim is not None and claim.job.result == job.result
    error = JobError(code="search-failed", detail="x")
    await store.finish(claim, status=Status.FAILED, error=error, usage=Usage())
    failed = await store.get(job.id)
    assert failed is not None and (failed.status, failed.result) == (Status.FAILED, job.result)


def test_rounds_of_the_first_version_are_read() -> None:
    round = make_round(3)
    assert unpack(round.model_dump_json().encode()) == logged(round) == unpack(pack(logged(round)))
    with pytest.raises(UnreadableRecord):
        unpack(b"\x00\x01")


def test_addresses_of_sentinels() -> None:
    found = sentinels_of("redis+sentinel://u:p%40@one:1,two/main/3")
    assert found is not None
    assert (found.hosts, found.name, found.db) == ((("one", 1), ("two", 26379)), "main", 3)
    assert found.login == {"username": "u", "password": "p@"}
    assert sentinels_of("redis://x") is None
    with pytest.raises(ValueError, match="sentinel"):
        sentinels_of("redis+sentinel://one")
