"""The life of a job over HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import routing
from fastapi.sse import KEEPALIVE_COMMENT

from sitsearch.service.gateway.views import job_view, ranked
from sitsearch.workers.engine.orders import conditions_of
from sitsearch.workers.jobs.chunks import texts
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import JobError, Status, Usage
from sitsearch.workers.jobs.logged import parse
from sitsearch.workers.jobs.proof import proof_in
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.records import Snapshot
from sitsearch.workers.settings import Settings
from tests.service.gateway.conftest import OFFER, body, problem, serving
from tests.workers.jobs.store.makers import (
    claimed,
    log_round,
    logged_rounds,
    make_job,
    make_request,
    make_result,
    png_of,
    succeeded,
)


async def test_a_submitted_job_is_queued_and_found_by_its_links(http: httpx.AsyncClient, store: JobStore) -> None:
    answer = await http.post("/generate", json=body(seed=2**63 - 1))
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == job["links"]["self"] == f"/jobs/{job['id']}"
    assert (job["status"], job["queue_position"], job["result"], job["error"]) == ("queued", 0, None, None)
    asked = {"class": "Q", "classes": None, "prompt": None, "prompts": None, "many": None}
    assert job["request"]["condition"] == asked
    assert job["request"]["seed"] == 2**63 - 1
    assert job["progress"]["nfe_budget"] == 400 and job["progress"]["forwards_budget"] is None
    assert (await http.get(job["links"]["self"])).json() == job
    claim = await store.claim("a")
    assert claim is not None and claim.job.id == job["id"] and claim.job.class_indices == (16,)


@pytest.mark.parametrize(("label", "index"), [("A", 0), ("9", 35), ("0", 26), (5, 5), ("30", 30), (0, 0)], ids=repr)
async def test_a_class_goes_by_name_or_index(
    http: httpx.AsyncClient, store: JobStore, label: str | int, index: int
) -> None:
    job = (await http.post("/generate", json=body(condition={"class": label}))).json()
    stored = await store.get(job["id"])
    assert stored is not None and stored.class_indices == (index,)


async def test_many_conditions_are_held_by_their_classes(http: httpx.AsyncClient, store: JobStore) -> None:
    many = [{"class": "Q", "prompt": "a red Q"}, {"class": 3, "prompt": None}]
    job = (await http.post("/generate", json=body(condition={"many": many}, allocation="adaptive"))).json()
    assert job["request"]["condition"]["many"] == many and job["request"]["allocation"] == "adaptive"
    stored = await store.get(job["id"])
    assert stored is not None and stored.class_indices == (16, 3)


async def test_many_prompts_go_to_a_model_that_draws_them(http: httpx.AsyncClient, store: JobStore) -> None:
    asked = body(model="free", condition={"prompts": ["a fox", "a hen"]}, verifier="alignment", per_condition=2)
    job = (await http.post("/generate", json=asked)).json()
    stored = await store.get(job["id"])
    assert stored is not None and stored.class_indices == ()
    conditions = conditions_of(stored.request, stored.class_indices, OFFER.models[1].classes, OFFER.models[1].template)
    assert [condition.prompt for condition in conditions] == ["a fox", "a hen"]
    plan = (await http.post("/generate?dry_run=true", json=asked | {"allocation": "adaptive"})).json()["plan"]
    assert (plan["candidates"], plan["nfe"]["search"], plan["exact"]) == (40, 400, True)


async def test_the_models_sampler_defaults_fill_what_is_not_given(http: httpx.AsyncClient) -> None:
    request = body(model="free", condition={"prompt": "x"}, verifier="aesthetic", sampler={"steps": 3})
    job = (await http.post("/generate", json=request)).json()
    expected = SamplerChoice(method="euler", steps=3, guidance=1.0)
    assert SamplerChoice.model_validate(job["request"]["sampler"]) == expected


async def test_a_request_that_names_no_algorithm_gets_the_automatic_search(http: httpx.AsyncClient) -> None:
    asked = {name: value for name, value in body().items() if name != "search"}
    request = (await http.post("/generate", json=asked)).json()["request"]
    assert request["search"]["algorithm"] == "auto"
    assert (request["sampler"]["method"], request["sampler"]["rho"]) == ("heun", 0.4), "the noise of its passes"


async def test_a_repeated_idempotency_key_gives_the_same_job(http: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k"}
    first = await http.post("/generate", json=body(), headers=headers)
    other_spelling = json.dumps(dict(reversed(body(verifier={"name": "classifier"}).items())), indent=4)
    headers_json = headers | {"Content-Type": "application/json; charset=utf-8"}
    second = await http.post("/generate", content=other_spelling, headers=headers_json)
    assert (first.status_code, second.status_code) == (202, 200)
    assert second.json() == first.json()
    assert second.headers["location"] == first.headers["location"]
    third = await http.post("/generate", json=body(seed=1), headers=headers)
    problem(third, 422, "idempotency-conflict")


async def test_a_full_queue_is_429_with_a_time_to_retry(store: JobStore, store_settings: Settings) -> None:
    await store.publish_offer(OFFER)
    with serving(store_settings.model_copy(update={"max_queued": 1})) as url, httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/generate", json=body()).status_code == 202
        answer = client.post(f"{url}/generate", json=body())
    problem(answer, 429, "queue-full")
    assert int(answer.headers["retry-after"]) > 0


async def test_without_workers_submitting_and_readiness_are_503(http: httpx.AsyncClient, store: JobStore) -> None:
    await store.redis.delete(store.keys.offer)
    for call in (http.post("/generate", json=body()), http.get("/readyz"), http.get("/models")):
        answer = await call
        problem(answer, 503, "no-workers")
        assert int(answer.headers["retry-after"]) > 0


async def test_without_redis_every_call_is_503_but_the_process_lives(store_settings: Settings) -> None:
    settings = store_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1"})
    with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
        for answer in (client.post("/generate", json=body()), client.get("/jobs/x"), client.get("/readyz")):
            problem(answer, 503, "store-unavailable")
            assert int(answer.headers["retry-after"]) > 0
        assert client.get("/healthz").status_code == 200
        assert "sitsearch_store_up 0.0" in client.get("/metrics").text


async def test_a_finished_job_shows_result_usage_and_image_links(http: httpx.AsyncClient, store: JobStore) -> None:
    done = await succeeded(store)
    job = (await http.get(f"/jobs/{done.id}")).json()
    assert job["status"] == "succeeded" and job["usage"]["nfe_search"] == 40
    assert job["finished_at"] >= job["started_at"] >= job["created_at"]
    (image,) = job["result"]["images"]
    assert [image["links"]["self"]] == job["links"]["images"]
    answer = await http.get(image["links"]["self"])
    assert texts(answer.content)["candidate"] == "0-0" and answer.headers["content-type"] == "image/png"
    proof = proof_in(answer.content)
    assert (proof.job, proof.rank, proof.candidate.id, proof.request) == (done.id, 0, "0-0", done.request)
    assert "immutable" in answer.headers["cache-control"]
    again = await http.get(image["links"]["self"], headers={"If-None-Match": f'"x", {answer.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_running_job_serves_its_best_images_so_far(http: httpx.AsyncClient, store: JobStore) -> None:
    claim = await claimed(store, request=make_request(num_images=2))
    await log_round(store, claim, 0)
    await log_round(store, claim, 1, keep=("1-0", "0-0"))
    job = (await http.get(f"/jobs/{claim.job.id}")).json()
    assert job["status"] == "running" and job["progress"]["round"] == 2
    answers = [await http.get(link) for link in job["links"]["images"]]
    assert [answer.content for answer in answers] == [png_of("1-0"), png_of("0-0")]
    assert answers[0].headers["cache-control"] == "no-cache"


async def test_the_log_is_a_round_a_line(http: httpx.AsyncClient, store: JobStore) -> None:
    claim = await claimed(store)
    for index in range(3):
        await log_round(store, claim, index)
    answer = await http.get((await http.get(f"/jobs/{claim.job.id}")).json()["links"]["log"])
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [parse(line) for line in answer.text.splitlines()] == await logged_rounds(store, claim.job.id)
    problem(await http.get("/jobs/x/log"), 404, "unknown-job")


@pytest.mark.parametrize("rank", ["1", "-1", "x", "9" * 50, "\u0660", "0.0", "%00"])
async def test_an_image_that_is_not_there_is_404(http: httpx.AsyncClient, store: JobStore, rank: str) -> None:
    job = await succeeded(store)
    problem(await http.get(f"/jobs/{job.id}/images/{rank}"), 404, "unknown-image")


async def test_an_expired_image_is_410(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await succeeded(store)
    await store.redis.delete(store.keys.images(job.id))
    problem(await http.get(f"/jobs/{job.id}/images/0"), 410, "image-expired")


async def test_a_failed_job_tells_why(http: httpx.AsyncClient, store: JobStore) -> None:
    claim = await claimed(store)
    error = JobError(code="search-failed", detail="no verifier")
    await store.finish(claim, status=Status.FAILED, error=error, usage=Usage())
    assert (await http.get(f"/jobs/{claim.job.id}")).json()["error"] == error.model_dump()


async def test_cancel_is_idempotent_and_sticky(http: httpx.AsyncClient, store: JobStore) -> None:
    job = (await http.post("/generate", json=body())).json()
    first = await http.post(job["links"]["cancel"])
    assert first.status_code == 200 and first.json()["status"] == "canceled"
    assert (await http.post(job["links"]["cancel"])).json() == first.json()
    done = await succeeded(store)
    assert (await http.post(f"/jobs/{done.id}/cancel")).json()["status"] == "succeeded"


async def test_waiting_answers_when_the_job_ends(http: httpx.AsyncClient, store: JobStore) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(http.get(f"/jobs/{claim.job.id}", headers={"Prefer": "respond-async, wait=20"}))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    start = time.monotonic()
    await log_round(store, claim, 0)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    answer = await waiting
    assert time.monotonic() - start < 1
    assert answer.json()["status"] == "succeeded" and answer.headers["preference-applied"] == "wait=20"


@pytest.mark.parametrize("prefer", ["wait=0", "wait=x", "wait=-1", "wait", "waiting=9", "", "wait=99999999999999"])
async def test_a_preference_without_sense_is_ignored(http: httpx.AsyncClient, store: JobStore, prefer: str) -> None:
    job = make_job()
    await store.submit(job)
    start = time.monotonic()
    assert (await http.get(f"/jobs/{job.id}", headers={"Prefer": prefer})).json()["status"] == "queued"
    assert time.monotonic() - start < 2


async def test_listing_follows_links_to_the_end(http: httpx.AsyncClient, store: JobStore) -> None:
    submitted = [make_job(created_at=1000.0 + i) for i in range(5)]
    for job in submitted:
        await store.submit(job)
    await store.cancel(submitted[0].id)
    seen: list[dict[str, Any]] = []
    link: str | None = "/jobs?status=queued&limit=3"
    while link:
        page = (await http.get(link)).json()
        seen += page["jobs"]
        link = page["links"]["next"]
    assert [job["id"] for job in seen] == [job.id for job in reversed(submitted[1:])]
    assert [job["queue_position"] for job in seen] == [3, 2, 1, 0]


async def sse(http: httpx.AsyncClient, link: str, **headers: str) -> list[dict[str, Any]]:
    """The events of a stream that ends."""
    events = []
    async with http.stream("GET", link, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        async for line in answer.aiter_lines():
            field, _, value = line.partition(": ")
            if field == "event":
                events.append({"event": value})
            elif field == "id":
                events[-1]["id"] = value
            elif field == "data":
                events[-1]["data"] = json.loads(value)
    return events


async def test_events_tell_a_jobs_whole_course_and_resume(http: httpx.AsyncClient, store: JobStore) -> None:
    job = (await http.post("/generate", json=body())).json()
    link = job["links"]["events"]
    following = asyncio.create_task(sse(http, link))
    await asyncio.sleep(0.2)
    claim = await store.claim("a")
    assert claim is not None
    await log_round(store, claim, 0)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage())
    events = await asyncio.wait_for(following, 5)
    assert [event["event"] for event in events] == ["job", "status", "round", "job"]
    assert events[0]["data"] == job
    assert events[1]["data"] == {"status": "running"}
    assert events[2]["data"]["point"]["nfe"] == 40
    assert events[3]["data"] == (await http.get(job["links"]["self"])).json()
    resumed = await sse(http, link, **{"Last-Event-ID": events[1]["id"]})
    assert resumed == events[2:]
    assert (await http.get(link, headers={"Last-Event-ID": events[-1]["id"]})).status_code == 204


async def test_a_silent_stream_is_kept_alive(
    http: httpx.AsyncClient, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert routing._PING_INTERVAL == 15
    monkeypatch.setattr(routing, "_PING_INTERVAL", 0.05)
    job = make_job()
    await store.submit(job)
    async with http.stream("GET", f"/jobs/{job.id}/events") as answer:
        async for line in answer.aiter_lines():
            if line == KEEPALIVE_COMMENT.decode().strip():
                break


async def test_a_stream_says_when_to_come_back_and_that_it_is_not_to_be_held_up(
    http: httpx.AsyncClient, store: JobStore
) -> None:
    job = await succeeded(store)
    answer = await http.get(f"/jobs/{job.id}/events")
    assert answer.status_code == 200 and answer.text.startswith("retry: 2000\n\n")
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")


async def test_nothing_to_follow_is_a_204_without_a_body(http: httpx.AsyncClient, store: JobStore) -> None:
    job = await succeeded(store)
    (event,) = await sse(http, f"/jobs/{job.id}/events")
    answer = await http.get(f"/jobs/{job.id}/events", headers={"Last-Event-ID": event["id"]})
    assert (answer.status_code, answer.content) == (204, b"") and "content-type" not in answer.headers


async def test_a_client_that_leaves_a_stream_leaves_nothing_behind(http: httpx.AsyncClient, store: JobStore) -> None:
    async def reading() -> int:
        return int((await store.redis.info("clients"))["blocked_clients"])

    async def reaches(count: int) -> bool:
        """Five times in a row: between two reads of a stream nobody waits either."""
        found: list[int] = []
        for _ in range(100):
            found.append(await reading())
            if found[-5:] == [count] * 5:
                return True
            await asyncio.sleep(0.02)
        return False

    job = make_job()
    await store.submit(job)
    async with http.stream("GET", f"/jobs/{job.id}/events") as answer:
        lines = answer.aiter_lines()
        while await anext(lines) != "event: job":
            pass
        assert await reaches(1)
    assert await reaches(0)


async def test_a_stream_ends_when_the_store_goes_away(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        settings = Settings(_env_file=None, redis_url=valkey.url)
        store = JobStore.from_url(valkey.url, settings)
        job = make_job()
        await store.submit(job)
        await store.aclose()
        with serving(settings) as url:
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
                async with client.stream("GET", f"/jobs/{job.id}/events") as answer:
                    lines = answer.aiter_lines()
                    while await anext(lines) != "event: job":
                        pass
                    os.kill(valkey.pid, signal.SIGKILL)
                    rest = [line async for line in lines]
                assert not any(line.startswith("event:") for line in rest)
                problem(await client.get(f"/jobs/{job.id}/events"), 503, "store-unavailable")


@pytest.mark.parametrize("what", ["models", "verifiers", "algorithms"])
async def test_the_offer_is_shown(http: httpx.AsyncClient, what: str) -> None:
    assert (await http.get(f"/{what}")).json() == {what: OFFER.model_dump(mode="json")[what]}


async def test_health_and_readiness(http: httpx.AsyncClient) -> None:
    assert (await http.get("/healthz")).json() == {"status": "ok"}
    assert (await http.get("/readyz")).json() == {"status": "ready"}


async def test_metrics_show_requests_jobs_and_workers(http: httpx.AsyncClient, store: JobStore) -> None:
    await store.publish_worker_metrics("w1", {"nfe_total": 80, "jobs_running": 1, "bad name": 1})
    await http.post("/generate", json=body())
    await http.get("/jobs/nobody")
    await http.get("/no/such/path")
    page = (await http.get("/metrics")).text
    for line in (
        'sitsearch_http_requests_total{method="POST",route="/generate",status="202"} 1.0',
        'sitsearch_http_requests_total{method="GET",route="/jobs/{job_id}",status="404"} 1.0',
        'sitsearch_http_requests_total{method="GET",route="unmatched",status="404"} 1.0',
        "sitsearch_store_up 1.0",
        "sitsearch_queue_depth 1.0",
        'sitsearch_jobs{status="queued"} 1.0',
        'sitsearch_worker_nfe_total{worker="w1"} 80.0',
        'sitsearch_worker_jobs_running{worker="w1"} 1.0',
    ):
        assert line in page.splitlines(), line
    assert "bad name" not in page


async def test_the_interface_description_covers_body_and_problems(http: httpx.AsyncClient) -> None:
    schema = (await http.get("/openapi.json")).json()
    assert {"nfe", "forwards"} <= set(schema["components"]["schemas"]["Budget"]["properties"])
    assert "verifier" in schema["components"]["schemas"]["GenerateBody"]["required"]
    names = json.dumps(schema).split('"#/components/schemas/')[1:]
    assert {name.split('"')[0] for name in names} <= set(schema["components"]["schemas"])


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"num_images": 2}, 2),
        ({"condition": {"classes": ["A"] * 3}}, 3),
        ({"condition": {"many": [{"class": "A", "prompt": "x"}] * 3}}, 3),
    ],
)
def test_while_a_job_runs_as_many_images_are_shown_as_were_asked_for(fields: dict[str, Any], shown: int) -> None:
    """An ensemble's job holds more, which may yet turn out to be better."""
    snapshot = Snapshot(make_job(request=make_request(**fields)), None, ("a", "b", "c"), "0-0")
    assert ranked(snapshot) == ("a", "b", "c")[:shown]
    assert len(job_view(snapshot, "").links.images) == shown
