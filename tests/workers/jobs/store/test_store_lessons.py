"""What finished jobs teach, in the store."""

from __future__ import annotations

import asyncio

import pytest

from sitsearch.workers.jobs.job import Extension
from sitsearch.workers.jobs.store import JobStore, scripts
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import claimed, log_round, make_job, succeeded

ABOUT = ("glyphs", "classifier")
ADDED = {"arm:rollover:n": 2.0, "arm:rollover:total": -0.1, "spread:total": 1e-30}


async def test_what_jobs_teach_is_added_up_by_model_and_verifier(store: JobStore) -> None:
    first, second, other = [await succeeded(store) for _ in range(3)]
    assert await store.lessons(*ABOUT) == {}
    assert await store.teach(first.id, *ABOUT, ADDED)
    assert await store.teach(second.id, *ABOUT, {"best:0:n": 1.0} | ADDED)
    assert await store.teach(other.id, "glyphs", "aesthetic", {"best:0:n": 1.0})
    sums = {"arm:rollover:n": 4, "arm:rollover:total": -0.2, "spread:total": 2e-30}
    assert await store.lessons(*ABOUT) == {"jobs": 2, "best:0:n": 1} | sums
    assert await store.lessons("glyphs", "aesthetic") == {"jobs": 1, "best:0:n": 1}


async def test_names_that_would_run_together_do_not(store: JobStore) -> None:
    job = await succeeded(store)
    await store.teach(job.id, 'a", "b', "c", ADDED)
    assert await store.lessons("a", 'b", "c') == {} and await store.lessons('a", "b', "c") != {}


async def test_a_job_teaches_once(store: JobStore) -> None:
    job = await succeeded(store)
    answers = await asyncio.gather(*(store.teach(job.id, *ABOUT, ADDED) for _ in range(5)))
    assert sorted(answers) == [False] * 4 + [True]
    assert (await store.lessons(*ABOUT))["jobs"] == 1
    assert await store.get(job.id) == job, "its record says no more than before"


async def test_a_job_that_goes_on_teaches_no_second_time(store: JobStore) -> None:
    job = await succeeded(store)
    await store.teach(job.id, *ABOUT, ADDED)
    await store.extend(job, Extension(after_round=1, nfe=40))
    assert not await store.teach(job.id, *ABOUT, ADDED), "it is queued"
    assert (await store.lessons(*ABOUT))["jobs"] == 1


async def test_what_did_not_succeed_teaches_nothing(store: JobStore) -> None:
    waiting = make_job()
    await store.submit(waiting)
    running = await claimed(store)
    await log_round(store, running, 0)
    for job_id in (waiting.id, running.job.id, "nobody"):
        assert not await store.teach(job_id, *ABOUT, ADDED)
    assert await store.lessons(*ABOUT) == {}
    assert await store.redis.exists(store.keys.job("nobody")) == 0


async def test_what_is_old_fades(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "LESSONS_KEPT", 4)
    for taught in range(6):
        await store.teach((await succeeded(store)).id, *ABOUT, {"gain:paths:5:n": 1.0, "gain:paths:5:total": taught})
    # 0 + 1 + 2 + 3, halved with the fourth; then 4, 5, of which the sixth halves them again
    assert await store.lessons(*ABOUT) == {"jobs": 2, "gain:paths:5:n": 2.0, "gain:paths:5:total": 6.0}


async def test_what_nobody_adds_to_is_forgotten(
    valkey_url: str, store_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "LESSONS_TTL", 0.1)
    store = JobStore.from_url(valkey_url, store_settings)
    await store.teach((await succeeded(store)).id, *ABOUT, ADDED)
    assert await store.lessons(*ABOUT) != {}
    await asyncio.sleep(0.2)
    assert await store.lessons(*ABOUT) == {}
    await store.aclose()


async def test_a_record_that_expires_with_its_job_is_not_kept_by_what_it_taught(store: JobStore) -> None:
    job = await succeeded(store)
    await store.teach(job.id, *ABOUT, ADDED)
    assert 0 < await store.redis.pttl(store.keys.job(job.id)) <= store.settings.job_ttl * 1000
