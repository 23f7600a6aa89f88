"""More than a deployment can take: refused with a figure and a time, and nothing that was taken is lost."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from sitsearch.service.gateway import planning
from sitsearch.workers.jobs.job import Status
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings
from tests.service.gateway.conftest import OFFER, body, problem, serving
from tests.workers.jobs.store.makers import claimed, make_request, succeeded


async def owed(store: JobStore) -> int:
    return int(await store.redis.hget(store.keys.owed, "") or 0)  # type: ignore[misc]


async def test_jobs_that_wait_are_bounded_in_nfe(store: JobStore, store_settings: Settings) -> None:
    await store.publish_offer(OFFER)
    limited = store_settings.model_copy(update={"max_queued_nfe": 5000})
    with serving(limited) as url, httpx.Client(base_url=url, trust_env=False) as client:
        assert client.post("/generate", json=body(budget={"nfe": 6000})).status_code == 202  # one may always wait
        refused = client.post("/generate", json=body(budget={"nfe": 400}))
        problem(refused, 429, "queue-full")
        assert "5,000 NFE" in refused.json()["detail"]
        claim = await store.claim("a", block=0)
        assert claim is not None and await owed(store) == 0
        for _ in range(2):
            assert client.post("/generate", json=body(budget={"forwards": 5000})).status_code == 202
        assert await owed(store) == 5000
        problem(client.post("/generate", json=body(budget={"nfe": 400})), 429, "queue-full")
        waiting = client.get("/jobs", params={"status": "queued"}).json()["jobs"]
        client.post(waiting[0]["links"]["cancel"])
        assert await owed(store) == 2500
        client.post(waiting[0]["links"]["resume"])
        assert await owed(store) == 5000


async def test_the_time_to_retry_follows_the_rate_at_which_jobs_end(store: JobStore, store_settings: Settings) -> None:
    await store.publish_offer(OFFER)
    with serving(store_settings.model_copy(update={"max_queued": 1})) as url, httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/generate", json=body()).status_code == 202
        before = client.post(f"{url}/generate", json=body()).headers["retry-after"]
        for _ in range(6):
            await store.cancel((await claimed(store)).job.id)
        while client.post(f"{url}/generate", json=body()).status_code == 202:
            pass
        after = client.post(f"{url}/generate", json=body()).headers["retry-after"]
    assert (before, after) == ("60", "10")  # 6 in a minute


async def test_a_gateway_has_so_many_watchers_and_no_more(store: JobStore, store_settings: Settings) -> None:
    job = (await claimed(store)).job.id
    with (
        serving(store_settings.model_copy(update={"max_watchers": 2})) as url,
        httpx.Client(base_url=url, trust_env=False, timeout=30) as client,
        ThreadPoolExecutor() as pool,
    ):
        with client.stream("GET", f"/jobs/{job}/events") as stream:
            lines = stream.iter_lines()  # which closes the stream with itself
            next(lines)
            polling = pool.submit(client.get, f"/jobs/{job}", headers={"Prefer": "wait=20"})
            time.sleep(0.3)
            for refused in (
                client.get(f"/jobs/{job}/events"),
                client.get(f"/jobs/{job}", headers={"Prefer": "wait=5"}),
            ):
                problem(refused, 503, "too-many-watchers")
                assert int(refused.headers["retry-after"]) > 0
            assert client.get(f"/jobs/{job}").status_code == 200  # who only looks is none
        await store.cancel(job)
        assert polling.result().json()["status"] == Status.CANCELED
        with client.stream("GET", f"/jobs/{job}/events") as stream:  # their places are free again
            assert stream.status_code == 200


async def test_a_log_that_would_be_too_large_is_refused_with_its_size(http: httpx.AsyncClient) -> None:
    search = {"algorithm": "random", "round_size": 1}
    sampler = {"method": "euler", "steps": 1, "guidance": 1}
    asked = body(budget={"nfe": 1_000_000}, search=search, sampler=sampler)
    refused = await http.post("/generate", json=asked)
    problem(refused, 422, "log-too-large")
    assert "1,000,000 candidates in 1,000,000 rounds would leave a log of 151 MB" in refused.json()["detail"]
    larger = asked | {"search": {"algorithm": "random", "round_size": 64}}
    assert (await http.post("/generate", json=larger)).status_code == 202


async def test_a_plan_is_made_once(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    plain = planning.make_plan
    monkeypatch.setattr(planning, "make_plan", lambda *args: made.append(args) or plain(*args))
    asked = body(budget={"nfe": 1234})
    answers = [(await http.post("/generate?dry_run=true", json=asked)).json() for _ in range(3)]
    assert answers[0] == answers[2] and len(made) == 1


async def test_an_extension_waits_with_what_it_may_spend(store: JobStore) -> None:
    from sitsearch.workers.jobs.job import Extension

    done = await succeeded(store, request=make_request(budget={"nfe": 400}))
    await store.extend(done, Extension(after_round=done.progress.round, nfe=120))
    assert await owed(store) == 120
