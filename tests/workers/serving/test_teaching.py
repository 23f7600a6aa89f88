"""What finished jobs teach, from one job to the next: gateway, store and coordinator, without Ray."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from sitsearch.workers.jobs.job import Status
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.lessons.priors import arm_priors
from sitsearch.workers.search.lessons.record import Learnt
from sitsearch.workers.serving.work import Work
from sitsearch.workers.settings import Settings
from tests.service.gateway.conftest import serving
from tests.workers.jobs.store.makers import logged_rounds
from tests.workers.serving.test_coordinator import EULER, STEPS, Painter, coordinating, job, until

ABOUT = ("glyphs", "classifier")
TRAJECTORIES = 64


def asked(search: str | dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The body of a request for so many trajectories."""
    budget = {"nfe": STEPS * TRAJECTORIES}
    defaults = {"condition": {"class": "Q"}, "verifier": "classifier", "sampler": EULER, "budget": budget}
    return defaults | {"search": search} | fields


async def lessons(store: JobStore, jobs: int) -> dict[str, float]:
    """What was taught, once so many jobs have taught: a job does so after its end."""
    async with asyncio.timeout(20):
        while (found := await store.lessons(*ABOUT)).get("jobs") != jobs:
            await asyncio.sleep(0.01)
    return found


async def done(http: httpx.AsyncClient, body: dict[str, Any]) -> dict[str, Any]:
    """A job that was submitted, at its end."""
    answer = await http.post("/generate", json=body)
    assert answer.status_code == 202, answer.text
    link = answer.json()["links"]["self"]
    view: dict[str, Any] = (await http.get(link, headers={"Prefer": "wait=20"})).json()
    assert view["status"] == "succeeded", view["error"]
    return view


async def test_a_later_request_carries_what_an_earlier_job_taught(store: JobStore, store_settings: Settings) -> None:
    lasting = store_settings.model_copy(update={"lease": 20.0, "offer_ttl": 60.0})
    async with coordinating(lasting, Painter()):
        while await store.offer() is None:
            await asyncio.sleep(0.01)
        with serving(lasting) as url:
            async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http:
                first = await done(http, asked({"algorithm": "auto", "arms": ["halving"]}))
                taught = arm_priors(Learnt(await lessons(store, 1)))
                second = await done(http, asked("auto", seed=1))
    assert "priors" not in first["request"]["search"]
    assert list(taught) == ["halving"] and second["request"]["search"]["priors"] == taught
    stored = await store.get(second["id"])
    assert stored is not None
    assert stored.request == GenerateRequest.model_validate(second["request"])
    assert (await lessons(store, 2))["jobs"] == 2


async def test_a_job_teaches_how_random_candidates_score(store: JobStore, store_settings: Settings) -> None:
    lasting = store_settings.model_copy(update={"lease": 20.0})
    wanted = job(search="random", budget={"nfe": STEPS * TRAJECTORIES})
    await store.submit(wanted)
    async with coordinating(lasting):
        known = Learnt(await lessons(store, 1))
    scores = [score for round in await logged_rounds(store, wanted.id) for score in round.scores["classifier"]]
    assert len(scores) == TRAJECTORIES and known.best(0).mean == pytest.approx(sum(scores) / len(scores))
    assert known.best(6).mean == known.found("random", TRAJECTORIES).mean == max(scores)


@pytest.mark.parametrize("at_fault", [(JobStore, "teach"), (Work, "lesson")])
async def test_a_job_succeeds_though_it_cannot_teach(
    store: JobStore,
    store_settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    at_fault: tuple[type, str],
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(*at_fault, fails)
    wanted = job(search="random", budget={"nfe": STEPS * TRAJECTORIES})
    await store.submit(wanted)
    with caplog.at_level(logging.WARNING):
        async with coordinating(store_settings.model_copy(update={"lease": 20.0})) as coordinator:
            ended = await until(store, wanted)
            await until(store, wanted, lambda _: coordinator.counters["jobs_total"] == 1)
    assert ended.status is Status.SUCCEEDED and await store.lessons(*ABOUT) == {}
    assert "has taught nothing: out of memory" in caplog.text


async def test_a_job_that_failed_teaches_nothing(store: JobStore, store_settings: Settings) -> None:
    wanted = job(search="random", model="gone")
    await store.submit(wanted)
    async with coordinating(store_settings.model_copy(update={"lease": 20.0})):
        assert (await until(store, wanted)).status is Status.FAILED
    assert await store.lessons("gone", "classifier") == {}
