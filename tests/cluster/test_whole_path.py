"""One request from HTTP to image, on real Ray, real Valkey, the real gateway and the bundled model."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sitsearch.service.client import Client, Problem
from tests.cluster.conftest import Service
from tests.cluster.requests import body, locally, winner

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]  # the first test starts the service


def test_a_search_spends_its_budget_and_answers_with_the_best(client: Client) -> None:
    job = client.wait(client.submit(body(num_images=3)))
    assert job["status"] == "succeeded"
    assert job["progress"]["nfe_spent"] == 48 == job["usage"]["nfe_search"]
    assert job["progress"]["forwards_spent"] == 96
    assert job["usage"]["nfe_wasted"] == 0
    scores = [image["score"] for image in job["result"]["images"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    assert [point["nfe"] for point in job["progress"]["curve"]] == [32, 48]
    image = Image.open(io.BytesIO(client.images(job)[0]))
    assert image.size == (32, 32)
    assert json.loads(image.text["sitsearch:recipe"]) == winner(job)["recipe"]
    assert json.loads(image.text["sitsearch:scores"]) == winner(job)["scores"]


def test_the_cluster_finds_what_a_search_in_one_process_finds(client: Client) -> None:
    request = body(label="g", candidates=9, seed=3)
    found = locally(request)
    job = client.wait(client.submit(request))
    assert winner(job) == found.result.images[0].candidate.model_dump(mode="json")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(client.images(job)[0]))), found.images[0].numpy())


def test_the_same_seed_finds_the_same_winner_whatever_runs_beside_it(client: Client) -> None:
    alone = client.wait(client.submit(body()))
    crowd = [client.submit(body(label, seed=i, sampler={"steps": 3, "guidance": 1})) for i, label in enumerate("aB7")]
    beside = client.wait(client.submit(body()))
    assert all(client.wait(job)["status"] == "succeeded" for job in crowd)
    assert winner(beside) == winner(alone)
    assert beside["progress"]["curve"] == alone["progress"]["curve"]


def test_a_final_generation_is_reserved_and_reported_apart(client: Client) -> None:
    sampler = {"method": "euler", "steps": 4, "guidance": 1, "final_steps": 10}
    job = client.wait(client.submit(body(budget={"nfe": 35}, sampler=sampler)))
    assert job["usage"] | {"nfe_search": 24, "nfe_final": 10, "forwards_search": 24} == job["usage"]
    assert winner(job)["phase"] == "final" and winner(job)["recipe"]["ops"][-1]["steps"] == 10


def test_stop_rules_end_a_search_early(client: Client) -> None:
    by_score = client.wait(client.submit(body(candidates=40, stop={"score": -100.0})))
    assert (by_score["result"]["stopped_by"], by_score["progress"]["round"]) == ("score", 1)
    by_time = client.wait(client.submit(body(candidates=4000, budget={"nfe": 32000, "seconds": 1.0})))
    assert by_time["result"]["stopped_by"] == "seconds"


def test_a_canceled_job_stops_and_stays_canceled(client: Client) -> None:
    job = client.submit(body(candidates=5000))
    while client.refresh(job)["progress"]["round"] == 0:
        time.sleep(0.1)
    assert client.cancel(job)["status"] == "canceled"
    rounds = client.refresh(job)["progress"]["round"]
    time.sleep(1.5)
    later = client.refresh(job)
    assert (later["status"], later["progress"]["round"]) == ("canceled", rounds)
    assert client.cancel(job)["status"] == "canceled"


def test_a_coordinator_killed_in_mid_job_costs_nothing_but_time(service: Service, client: Client) -> None:
    request = body(candidates=128, seed=5)
    undisturbed = client.wait(client.submit(request))
    job = client.submit(request)
    while client.refresh(job)["progress"]["round"] < 3:
        time.sleep(0.05)
    os.kill(coordinator(service), signal.SIGKILL)
    assert client.refresh(job)["status"] == "running"
    disturbed = client.wait(job)
    assert disturbed["status"] == "succeeded"
    assert disturbed["result"] == without_links(undisturbed, disturbed)
    assert disturbed["progress"] == undisturbed["progress"]
    assert disturbed["usage"]["nfe_wasted"] > 0


@pytest.mark.parametrize("search", ["random", "lookahead"])
def test_what_guides_and_what_is_guided_may_die(service: Service, client: Client, search: str) -> None:
    """Verifier, sampler and coordinator that are killed under a guided search cost work, and change nothing."""
    request = body(candidates=64, seed=8, search=search, guide=None if search == "lookahead" else "classifier")
    undisturbed = client.wait(client.submit(request))
    job = client.submit(request)
    for round, deployment in ((1, b"Verifier-classifier"), (2, b"Sampler-glyphs")):
        while client.refresh(job)["progress"]["round"] < round:
            time.sleep(0.05)
        for pid in service.descendants():
            if deployment in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)
    while client.refresh(job)["progress"]["round"] < 3:
        time.sleep(0.05)
    os.kill(coordinator(service), signal.SIGKILL)
    disturbed = client.wait(job)
    assert disturbed["status"] == "succeeded", disturbed["error"]
    assert disturbed["result"] == without_links(undisturbed, disturbed)
    assert disturbed["progress"] == undisturbed["progress"]
    assert disturbed["usage"]["nfe_wasted"] > 0 == undisturbed["usage"]["nfe_wasted"]
    if search == "random":
        assert disturbed["usage"]["gradients_search"] == undisturbed["usage"]["gradients_search"] > 0


def test_warm_up_is_reported_apart_from_what_jobs_cost(service: Service) -> None:
    figures = dict(re.findall(r'(sitsearch_worker_warm_up_\w+)\{worker="sampler-glyphs"\} (\S+)', metrics(service)))
    assert float(figures["sitsearch_worker_warm_up_forwards"]) > 32
    assert float(figures["sitsearch_worker_warm_up_seconds"]) > 0


def test_a_gateway_killed_loses_no_job(service: Service, client: Client) -> None:
    job = client.submit(body(candidates=128, seed=6))
    (pid,) = [
        p for p in service.descendants() if b"sitsearch.service.gateway" in Path(f"/proc/{p}/cmdline").read_bytes()
    ]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not client.ready():
        assert time.monotonic() < deadline, "the gateway did not come back"
        time.sleep(0.2)
    assert client.wait(job)["status"] == "succeeded"


def test_a_store_killed_is_started_again_and_loses_nothing(service: Service, client: Client) -> None:
    request = body(candidates=128, seed=7)
    undisturbed = client.wait(client.submit(request))
    job = client.submit(request)
    while client.refresh(job)["progress"]["round"] < 2:
        time.sleep(0.05)
    children = [path.read_text().split() for path in Path(f"/proc/{service.process.pid}/task").glob("*/children")]
    (pid,) = [p for part in children for p in part if b"valkey-server" in Path(f"/proc/{p}/cmdline").read_bytes()]
    os.kill(int(pid), signal.SIGKILL)
    deadline = time.monotonic() + 60
    disturbed = job
    while disturbed["status"] not in ("succeeded", "failed"):
        assert time.monotonic() < deadline
        try:
            disturbed = client.refresh(job)
        except Problem as problem:
            assert problem.status == 503
        time.sleep(0.2)
    assert disturbed["result"] == without_links(undisturbed, disturbed)
    assert disturbed["progress"] == undisturbed["progress"]


def metrics(service: Service) -> str:
    return httpx.get(f"{service.url}/metrics").text


def coordinator(service: Service) -> int:
    """The process of the only coordinator that carried out rounds and lives."""
    found = set(re.findall(r'sitsearch_worker_rounds_total\{worker="[^"]*-(\d+)"\}', metrics(service)))
    (pid,) = [int(pid) for pid in found if Path(f"/proc/{pid}").exists()]
    return pid


def without_links(source: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The result of `source` with the links of `other`, which alone name the job."""
    images = [
        image | {"links": twin["links"]}
        for image, twin in zip(source["result"]["images"], other["result"]["images"], strict=True)
    ]
    return source["result"] | {"images": images}
