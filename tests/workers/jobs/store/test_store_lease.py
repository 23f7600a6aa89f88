"""Leases, fencing and the round log."""

from __future__ import annotations

import asyncio
import time

import pytest

from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, RoundOutOfOrder
from sitsearch.workers.jobs.job import JobError, Status, Usage
from sitsearch.workers.jobs.logged import logged
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import (
    claimed,
    log_round,
    logged_rounds,
    make_job,
    make_progress,
    make_result,
    make_round,
    png_of,
)


async def test_a_claim_marks_the_job_running(store: JobStore) -> None:
    claim = await claimed(store)
    assert (claim.fence, claim.taken_over, claim.job.status) == (1, False, Status.RUNNING)
    assert claim.job.started_at is not None and claim.job.started_at >= claim.job.created_at
    assert await store.get(claim.job.id) == claim.job


async def test_a_claim_waits_for_a_job(store: JobStore) -> None:
    waiting = asyncio.create_task(store.claim("a", block=5))
    await asyncio.sleep(0.1)
    job = make_job()
    await store.submit(job)
    claim = await asyncio.wait_for(waiting, 2)
    assert claim is not None and claim.job.id == job.id


async def test_an_empty_queue_gives_none_after_the_block(store: JobStore) -> None:
    for block in (0.2, 2.5):
        start = time.monotonic()
        assert await store.claim("a", block=block) is None
        assert block <= time.monotonic() - start < block + 1


async def test_jobs_are_claimed_in_order_and_once(store: JobStore) -> None:
    jobs = [make_job() for _ in range(10)]
    for job in jobs:
        await store.submit(job)
    claims = await asyncio.gather(*(store.claim(f"c{i % 3}", block=0.2) for i in range(12)))
    taken = [claim.job.id for claim in claims if claim]
    assert sorted(taken) == sorted(job.id for job in jobs)


async def test_a_silent_coordinator_loses_its_job_to_another(store: JobStore) -> None:
    first = await claimed(store, "a")
    await log_round(store, first, 0)
    assert await store.claim("b", block=0.05) is None
    await asyncio.sleep(0.4)
    second = await store.claim("b", block=0.05)
    assert second is not None and second.job.id == first.job.id
    assert (second.fence, second.taken_over) == (2, True)
    assert second.job.started_at == first.job.started_at
    assert second.job.progress == make_progress(1).model_copy(update={"curve": ()})
    assert await logged_rounds(store, first.job.id) == [logged(make_round(0))]
    for write in (
        log_round(store, first, 1),
        store.finish(first, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage()),
    ):
        with pytest.raises(LeaseLost):
            await write
    lost, held = await store.renew([first, second])
    assert isinstance(lost, LeaseLost) and held is None
    await log_round(store, second, 1)
    assert len(await logged_rounds(store, first.job.id)) == 2


async def test_a_renewed_lease_is_kept(store: JobStore) -> None:
    claim = await claimed(store, "a")
    for _ in range(5):
        await asyncio.sleep(0.1)
        assert await store.renew([claim]) == [None]
        assert await store.claim("b", block=0) is None


async def test_a_logged_round_renews_the_lease(store: JobStore) -> None:
    claim = await claimed(store, "a")
    for index in range(5):
        await asyncio.sleep(0.1)
        await log_round(store, claim, index)
        assert await store.claim("b", block=0) is None


async def test_many_live_leases_do_not_hide_a_lost_one(valkey_url: str, store_settings: Settings) -> None:
    store = JobStore.from_url(valkey_url, store_settings.model_copy(update={"lease": 2.0}))
    lost = await claimed(store, "dead")
    live = [await claimed(store, "live") for _ in range(30)]
    deadline = time.monotonic() + 2.1
    while time.monotonic() < deadline:
        assert await store.renew(live) == [None] * len(live)
    taken = await store.claim("b", block=0)
    assert taken is not None and taken.job.id == lost.job.id
    assert await store.claim("b", block=0) is None
    await store.aclose()


async def test_a_coordinator_is_not_given_what_it_works_on(store: JobStore) -> None:
    claim = await claimed(store, "a")
    await asyncio.sleep(0.4)  # the lease has run out, and nobody noticed yet
    assert await store.claim("a", block=0.05, held=[claim.job.id]) is None
    await log_round(store, claim, 0)  # it was not taken: the round counts, and the lease starts anew
    assert await store.claim("b", block=0.05) is None


async def test_a_claim_that_is_sent_twice_is_one(store: JobStore) -> None:
    await store.submit(make_job())
    job_id = await store.scripts.next([])
    assert job_id is not None
    first = await store.scripts.take(job_id, "a", "nonce", now=1.0, lease=9.0)
    assert await store.scripts.take(job_id, "a", "nonce", now=2.0, lease=9.0) == first
    assert await store.scripts.take(job_id, "a", "other", now=2.0, lease=9.0) is None


async def test_a_released_lease_is_taken_at_once_and_counts_for_nothing(store: JobStore) -> None:
    first = await claimed(store, "a")
    await log_round(store, first, 0)
    await store.release(first)
    await store.release(first)  # sent twice
    second = await store.claim("b", block=0.05)
    assert second is not None and (second.taken_over, second.attempts) == (False, 0)
    for write in (log_round(store, first, 1), store.release(first)):
        with pytest.raises(LeaseLost):
            await write
    await log_round(store, second, 1)


async def test_claims_are_counted_from_the_last_round_that_was_logged(store: JobStore) -> None:
    claim = await claimed(store, "a")
    seen = []
    for consumer in "bcd":
        await asyncio.sleep(0.35)
        taken = await store.claim(consumer, block=0.05)
        assert taken is not None
        seen.append(taken.attempts)
        if consumer == "c":
            await log_round(store, taken, 0)
    assert (claim.attempts, seen) == (1, [2, 3, 1])


async def test_queue_and_leases_are_made_again_from_the_jobs(store: JobStore) -> None:
    running, waiting = await claimed(store, "a"), make_job()
    await store.submit(waiting)
    await store.redis.delete(store.keys.waiting, store.keys.leases, store.keys.wakeups)
    taken = [await store.claim("b", block=0.05) for _ in range(3)]
    assert [claim and (claim.job.id, claim.taken_over) for claim in taken] == [
        (running.job.id, True),
        (waiting.id, False),
        None,
    ]


async def test_two_claims_never_share_a_token(store: JobStore) -> None:
    """A store that lost its last writes counts claims from before them; the one holder's writes are still refused."""
    first = await claimed(store, "a")
    await store.redis.hset(store.keys.job(first.job.id), "fence", 0)
    await store.redis.zadd(store.keys.leases, {first.job.id: 0})
    second = await store.claim("b", block=0.05)
    assert second is not None and second.fence == first.fence and second.token != first.token
    with pytest.raises(LeaseLost):
        await log_round(store, first, 0)
    await log_round(store, second, 0)


async def test_a_round_that_is_not_the_next_is_refused_and_nothing_changes(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    before = await store.get(claim.job.id)
    with pytest.raises(RoundOutOfOrder, match="round 5 given where round 1 is due"):
        await log_round(store, claim, 5)
    assert await store.get(claim.job.id) == before
    assert await logged_rounds(store, claim.job.id) == [logged(make_round(0))]


async def test_a_round_sent_twice_is_logged_once(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    await log_round(store, claim, 0)
    assert await logged_rounds(store, claim.job.id) == [logged(make_round(0))]


async def test_only_images_of_kept_candidates_are_stored(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    await log_round(store, claim, 1, keep=("0-0",))
    assert await store.images(claim.job.id, ["0-0", "1-0"]) == [png_of("0-0"), None]
    await log_round(store, claim, 2, keep=("2-0", "0-0"))
    assert await store.images(claim.job.id, ["0-0", "1-0", "2-0"]) == [png_of("0-0"), None, png_of("2-0")]
    snapshot = await store.snapshot(claim.job.id)
    assert snapshot is not None and snapshot.best == ("2-0", "0-0")
    await log_round(store, claim, 3)
    assert await store.image(claim.job.id, "3-0") == png_of("3-0")
    assert await store.image(claim.job.id, "0-0") is None


async def test_a_coordinator_learns_of_a_cancellation_at_its_next_write(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    canceled = await store.cancel(claim.job.id)
    assert canceled is not None and canceled.status is Status.CANCELED
    for write in (
        log_round(store, claim, 1),
        store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage()),
    ):
        with pytest.raises(JobCanceled):
            await write
    assert [type(refusal) for refusal in await store.renew([claim])] == [JobCanceled]
    assert await store.get(claim.job.id) == canceled
    await asyncio.sleep(0.4)
    assert await store.claim("b", block=0.05) is None


async def test_a_coordinator_that_listens_learns_of_a_cancellation_at_once(store: JobStore) -> None:
    claim = await claimed(store)
    last, jobs = await store.cancellations("0", block=0.05)
    assert not jobs
    listening = asyncio.create_task(store.cancellations(last))
    await store.submit(waiting := make_job())
    await store.cancel(waiting.id)  # nobody's
    await store.cancel(claim.job.id)
    after, jobs = await listening
    assert jobs == {claim.job.id}
    await store.cancel(claim.job.id)  # a second time
    assert await store.cancellations(after, block=0.05) == (after, set())
    assert (await store.cancellations("0"))[1] == {claim.job.id}


async def test_a_job_ends_once(store: JobStore) -> None:
    claim = await claimed(store)
    await log_round(store, claim, 0)
    usage = Usage(nfe_search=40)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=usage)
    ended = await store.get(claim.job.id)
    assert ended is not None and (ended.status, ended.usage) == (Status.SUCCEEDED, usage)
    assert ended.result == make_result("0-0") and ended.finished_at is not None
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("1-0"), usage=Usage())  # sent twice
    with pytest.raises(LeaseLost):
        await store.finish(claim, status=Status.FAILED, error=JobError(code="x", detail="y"), usage=Usage())
    with pytest.raises(LeaseLost):
        await log_round(store, claim, 1)
    assert await store.get(claim.job.id) == ended


async def test_a_failed_job_tells_why(store: JobStore) -> None:
    claim = await claimed(store)
    error = JobError(code="search-failed", detail="no verifier")
    await store.finish(claim, status=Status.FAILED, error=error, usage=Usage())
    job = await store.get(claim.job.id)
    assert job is not None and (job.status, job.error, job.result) == (Status.FAILED, error, None)


async def test_claiming_goes_on_after_the_store_was_emptied(store: JobStore) -> None:
    await claimed(store)
    await store.redis.delete(*await store.redis.keys(f"{store.keys.root}*"))
    assert await store.claim("a", block=0) is None
    assert (await claimed(store)).fence == 1
