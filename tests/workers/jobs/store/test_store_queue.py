"""Submitting, listing, queueing and cancelling jobs."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.errors import BadCursor, IdempotencyConflict, QueueFull, StoreUnavailable
from sitsearch.workers.jobs.job import Job, Status, Usage
from sitsearch.workers.jobs.store import JobStore, connection
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import claimed, log_round, make_job, make_request, make_result, succeeded


async def position(store: JobStore, job: Job) -> int | None:
    """How many jobs are ahead of it; None when it does not wait."""
    snapshot = await store.snapshot(job.id)
    assert snapshot is not None
    return snapshot.queue_position


async def test_a_job_comes_back_as_it_was_submitted(store: JobStore) -> None:
    request = make_request(search={"algorithm": "random", "round_size": 4}, condition={"prompt": 'ü "{}" \x00 \u2028'})
    job = make_job(request=request, class_indices=())
    assert await store.submit(job) == (job, True)
    assert await store.get(job.id) == job


async def test_an_unknown_job_is_none(store: JobStore) -> None:
    assert await store.get("nobody") is None
    assert await store.cancel("nobody") is None
    assert await store.snapshot("nobody") is None


async def test_submitting_the_same_record_twice_queues_it_once(store: JobStore) -> None:
    job = make_job()
    await store.submit(job)
    assert await store.submit(job) == (job, True)
    assert await store.claim("a", block=0.05) is not None
    assert await store.claim("a", block=0.05) is None


async def test_a_repeated_idempotency_key_gives_the_first_job(store: JobStore) -> None:
    first, second = make_job(), make_job()
    await store.submit(first, idempotency_key="key", body_digest="d")
    assert await store.submit(second, idempotency_key="key", body_digest="d") == (first, False)
    assert await store.get(second.id) is None


async def test_an_idempotency_key_with_another_body_is_refused(store: JobStore) -> None:
    await store.submit(make_job(), idempotency_key="key", body_digest="d")
    with pytest.raises(IdempotencyConflict):
        await store.submit(make_job(), idempotency_key="key", body_digest="other")


async def test_of_concurrent_submissions_with_one_key_only_one_creates(store: JobStore) -> None:
    answers = await asyncio.gather(
        *(store.submit(make_job(), idempotency_key="key", body_digest="d") for _ in range(20))
    )
    assert sum(created for _, created in answers) == 1
    assert len({job.id for job, _ in answers}) == 1


async def test_a_full_queue_refuses_and_a_claim_makes_room(valkey_url: str, store_settings: Settings) -> None:
    store = JobStore.from_url(valkey_url, store_settings.model_copy(update={"max_queued": 2}))
    await store.submit(make_job())
    await store.submit(make_job())
    refused = make_job()
    with pytest.raises(QueueFull):
        await store.submit(refused, idempotency_key="key", body_digest="d")
    assert await store.get(refused.id) is None
    await store.claim("a", block=0.05)
    assert (await store.submit(refused, idempotency_key="key", body_digest="d"))[1]
    await store.aclose()


async def test_queue_positions_count_the_jobs_ahead(store: JobStore) -> None:
    jobs = [make_job() for _ in range(3)]
    for job in jobs:
        await store.submit(job)
    assert [await position(store, job) for job in jobs] == [0, 1, 2]
    await store.cancel(jobs[1].id)
    assert [await position(store, job) for job in jobs] == [0, None, 1]
    claim = await store.claim("a", block=0.05)
    assert claim is not None and claim.job.id == jobs[0].id
    assert await position(store, jobs[2]) == 0


async def test_pages_are_newest_first_and_miss_or_repeat_nothing_while_jobs_arrive(store: JobStore) -> None:
    jobs = [make_job(created_at=1000.0 + i // 2) for i in range(7)]  # pairs share a time
    for job in jobs:
        await store.submit(job)
    seen, cursor = [], None
    while True:
        page, cursor = await store.page(cursor=cursor, limit=2)
        seen += [snapshot.job for snapshot in page]
        if cursor is None:
            break
        await store.submit(make_job(created_at=2000.0))
    assert sorted(job.id for job in seen) == sorted(job.id for job in jobs)
    assert [job.created_at for job in seen] == sorted((job.created_at for job in jobs), reverse=True)


async def test_listing_by_status(store: JobStore) -> None:
    done = await succeeded(store)
    running = (await claimed(store)).job
    waiting = make_job()
    await store.submit(waiting)
    canceled = make_job()
    await store.submit(canceled)
    await store.cancel(canceled.id)
    for status, expected in (
        (Status.QUEUED, [waiting.id]),
        (Status.RUNNING, [running.id]),
        (Status.SUCCEEDED, [done.id]),
        (Status.CANCELED, [canceled.id]),
        (Status.FAILED, []),
    ):
        assert [snapshot.job.id for snapshot in (await store.page(status=status))[0]] == expected
    assert await store.counts() == {
        Status.QUEUED: 1,
        Status.RUNNING: 1,
        Status.SUCCEEDED: 1,
        Status.FAILED: 0,
        Status.CANCELED: 1,
    }


@pytest.mark.parametrize("cursor", ["", "x", "1.0", "nan:a", "1.0:", ":a"])
async def test_a_made_up_cursor_is_refused(store: JobStore, cursor: str) -> None:
    with pytest.raises(BadCursor):
        await store.page(cursor=cursor)


async def test_cancelling_is_idempotent_and_keeps_its_first_time(store: JobStore) -> None:
    job = make_job()
    await store.submit(job)
    first = await store.cancel(job.id)
    assert first is not None and first.status is Status.CANCELED and first.finished_at is not None
    assert await store.cancel(job.id) == first


async def test_cancelling_an_ended_job_changes_nothing(store: JobStore) -> None:
    job = await succeeded(store)
    assert await store.cancel(job.id) == job


async def test_a_canceled_job_is_never_claimed(store: JobStore) -> None:
    canceled, other = make_job(), make_job()
    await store.submit(canceled)
    await store.submit(other)
    await store.cancel(canceled.id)
    claim = await store.claim("a", block=0.05)
    assert claim is not None and claim.job.id == other.id
    assert await store.claim("a", block=0.05) is None


async def test_ended_jobs_expire_from_records_and_listings(valkey_url: str, store_settings: Settings) -> None:
    short = {"job_ttl": 0.2, "image_ttl": 0.1}
    store = JobStore.from_url(valkey_url, store_settings.model_copy(update=short))
    job = await succeeded(store)
    waiting = make_job()
    await store.submit(waiting)
    await asyncio.sleep(0.4)
    assert await store.get(job.id) is None
    assert await store.redis.exists(store.keys.images(job.id)) == 0
    assert (await store.counts())[Status.SUCCEEDED] == 0
    assert [snapshot.job.id for snapshot in (await store.page())[0]] == [waiting.id]
    left = {key.decode() for key in await store.redis.keys(f"{store.keys.root}*")}
    assert left == {
        store.keys.wakeups,
        store.keys.waiting,
        store.keys.owed,
        store.keys.submitted,
        store.keys.jobs,
        store.keys.of_status(Status.QUEUED),
        store.keys.job(waiting.id),
        store.keys.events(waiting.id),
    }
    await store.aclose()


async def test_an_expired_job_frees_its_idempotency_key(valkey_url: str, store_settings: Settings) -> None:
    store = JobStore.from_url(valkey_url, store_settings.model_copy(update={"job_ttl": 0.1}))
    first = make_job()
    await store.submit(first, idempotency_key="key", body_digest="d")
    await store.cancel(first.id)
    await asyncio.sleep(0.2)
    assert (await store.submit(make_job(), idempotency_key="key", body_digest="other"))[1]
    await store.aclose()


async def test_an_absent_redis_raises_store_unavailable(store_settings: Settings) -> None:
    store = JobStore.from_url("redis://127.0.0.1:1", store_settings)
    for call in (store.get("x"), store.submit(make_job()), store.claim("a", block=0.05), store.offer(), store.ping()):
        with pytest.raises(StoreUnavailable):
            await call
    await store.aclose()


async def test_a_silent_redis_raises_store_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_SOCKET_TIMEOUT", 0.3)
    with EmbeddedValkey(tmp_path) as valkey:
        store = JobStore.from_url(valkey.url, Settings(_env_file=None))
        await store.ping()
        os.kill(valkey.pid, signal.SIGSTOP)
        try:
            start = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await store.get("x")
            assert time.monotonic() - start < 2
        finally:
            os.kill(valkey.pid, signal.SIGCONT)
        await store.submit(make_job())  # and it is used again once it answers
        await store.aclose()


async def test_a_finished_job_leaves_no_queue_entry(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    assert await store.redis.exists(store.keys.waiting, store.keys.leases) == 0
