"""Waiting for jobs, following them, and what the workers publish."""

from __future__ import annotations

import asyncio
import time

import pytest

from sitsearch.workers.jobs.errors import UnknownJob
from sitsearch.workers.jobs.job import Status, Usage
from sitsearch.workers.jobs.offer import AlgorithmOffer, Offer
from sitsearch.workers.jobs.store import JobStore
from tests.workers.jobs.store.makers import claimed, log_round, make_job, make_result, succeeded


async def follow(store: JobStore, job_id: str, last_id: str | None = None) -> list[tuple[str, str]]:
    return [(event_id, event.type) async for event_id, event in store.events(job_id, last_id)]


async def test_many_who_wait_share_a_connection(store: JobStore) -> None:
    claims = [await claimed(store) for _ in range(3)]
    waiting = [asyncio.create_task(store.wait(claims[i % 3].job.id, 20)) for i in range(150)]
    await asyncio.sleep(1.5)
    clients = await store.redis.client_list()
    assert sum(client["cmd"] == "xread" and "b" in client["flags"] for client in clients) <= 1
    for claim in claims:
        await store.cancel(claim.job.id)
    assert {job.status for job in await asyncio.gather(*waiting)} == {Status.CANCELED}


async def test_wait_returns_as_soon_as_the_job_ends(store: JobStore) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(store.wait(claim.job.id, 10))
    await log_round(store, claim, 0)
    await asyncio.sleep(0.1)
    assert not waiting.done()
    start = time.monotonic()
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    assert (await waiting).status is Status.SUCCEEDED
    assert time.monotonic() - start < 0.5


async def test_wait_returns_the_job_as_it_stands_at_the_timeout(store: JobStore) -> None:
    job = make_job()
    await store.submit(job)
    start = time.monotonic()
    assert await store.wait(job.id, 0.2) == job
    assert time.monotonic() - start < 1


async def test_wait_on_an_ended_job_does_not_wait(store: JobStore) -> None:
    job = await succeeded(store)
    start = time.monotonic()
    assert await store.wait(job.id, 10) == job
    assert time.monotonic() - start < 0.5


async def test_waiting_for_or_following_an_unknown_job_is_refused(store: JobStore) -> None:
    with pytest.raises(UnknownJob):
        await store.wait("nobody", 1)
    with pytest.raises(UnknownJob):
        await follow(store, "nobody")


async def test_events_start_with_a_snapshot_and_end_with_the_job(store: JobStore) -> None:
    claim = await claimed(store)
    following = asyncio.create_task(follow(store, claim.job.id))
    await asyncio.sleep(0.1)
    await log_round(store, claim, 0)
    await log_round(store, claim, 1)
    await store.cancel(claim.job.id)
    events = await asyncio.wait_for(following, 3)
    assert [kind for _, kind in events] == ["snapshot", "round", "round", "canceled"]


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice(store: JobStore) -> None:
    claim = await claimed(store)
    for index in range(3):
        await log_round(store, claim, index)
    seen = []
    async for event_id, event in store.events(claim.job.id, "0-1"):  # before the first event: a snapshot is needed
        seen.append((event_id, event.type))
        break
    assert [kind for _, kind in seen] == ["snapshot"]
    await log_round(store, claim, 3)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    rest = await follow(store, claim.job.id, seen[-1][0])
    assert [kind for _, kind in rest] == ["round", "succeeded"]
    assert await follow(store, claim.job.id, rest[-1][0]) == []
    assert await follow(store, claim.job.id, rest[0][0]) == rest[1:]


async def test_a_cancelled_reader_ends_at_whatever_moment_it_is_cancelled(store: JobStore) -> None:
    job = make_job()
    await store.submit(job)
    for turns in range(6):
        events = store.events(job.id)
        await anext(events)
        reading = asyncio.ensure_future(anext(events))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading}, timeout=5)
        assert reading.cancelled(), turns


@pytest.mark.parametrize("last_id", ["", "x", "-", "1-", "٣-1", "99999999999999999999999-0", "-1-0", "9999999999999-0"])
async def test_a_senseless_last_id_starts_anew(store: JobStore, last_id: str) -> None:
    job = await succeeded(store)
    assert [kind for _, kind in await follow(store, job.id, last_id)] == ["snapshot"]


async def test_a_round_event_tells_the_progress_and_its_point(store: JobStore) -> None:
    claim = await claimed(store)
    events = store.events(claim.job.id)
    await anext(events)
    await log_round(store, claim, 0)
    _, event = await anext(events)
    assert event.data == {
        "nfe_spent": 40,
        "nfe_budget": 400,
        "forwards_spent": 80,
        "forwards_budget": None,
        "gradients_spent": 0,
        "gradients_budget": None,
        "round": 1,
        "best_score": 0.0,
        "target": None,
        "point": {"nfe": 40, "forwards": 80, "score": 0.0, "scores": None},
        "candidates": {"ids": ["0-0"], "scores": {"classifier": [0.0]}},
    }


async def test_an_offer_is_believed_until_its_time_runs_out(store: JobStore) -> None:
    assert await store.offer() is None
    algorithm = AlgorithmOffer(name="random", title="t", reference="r", options_schema={"type": "object"})
    offer = Offer(models=(), verifiers=(), algorithms=(algorithm,), deterministic=True)
    await store.publish_offer(offer)
    assert await store.offer() == offer
    assert 0 < await store.redis.pttl(store.keys.offer) <= store.settings.offer_ttl * 1000


async def test_worker_figures_are_kept_by_worker_and_replaced(store: JobStore) -> None:
    await store.publish_worker_metrics("a", {"nfe_total": 1, "gone": 2})
    await store.publish_worker_metrics("a", {"nfe_total": 40.5})
    await store.publish_worker_metrics("b", {"nfe_total": 2})
    assert await store.worker_metrics() == {"a": {"nfe_total": 40.5}, "b": {"nfe_total": 2.0}}
