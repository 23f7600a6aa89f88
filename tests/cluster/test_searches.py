"""Every kind of search over HTTP: algorithms, ensembles, auditors, sets, prompts, plans and extensions."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sitsearch.service.client import Client, Problem
from tests.cluster.requests import body, locally, winner

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]  # the first test starts the service

STOCHASTIC = {"method": "euler_maruyama", "steps": 6, "guidance": 1.0, "norm": 0.3}
ENSEMBLE = {"name": "ensemble", "members": ["classifier", "similarity"], "rule": "zscore", "weights": [3, 1]}


def pixels(png: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.mark.parametrize(
    "request_",
    [
        body("R", 16, search="zero_order"),
        body("R", 40, search={"algorithm": "paths", "start": 0.3, "delta_f": 0.4, "delta_b": 0.6}),
        body("R", 16, search="fk_steering", sampler=STOCHASTIC),
        body("R", 10, search="epsilon_greedy", sampler=STOCHASTIC, verifier=ENSEMBLE, auditors=["auditor"]),
        body("R", 60, search="auto"),
        body("R", 12, search="random", guide={"strength": 0.6, "views": 2}),
        body(
            "R",
            12,
            search="fk_steering",
            sampler=STOCHASTIC,
            guide={"verifier": "auditor", "noise": 0.3, "unaudited": True},
        ),
        body("R", 20, search="lookahead"),
        body("R", 24, search="trust_region"),
        body("R", 16, search="revisit"),
        body("R", 24, search="backtracking"),
        body("R", 24, search="rollover", sampler=STOCHASTIC, num_images=2),
        body("R", 24, search="evo_search", sampler=STOCHASTIC),
        body("R", 24, search="tree_search", sampler=STOCHASTIC),
        body("R", 24, search="successive_halving", num_images=3, diversity=0.5),
        body(budget={"nfe": 160}, condition={"classes": ["a", "b"]}, per_condition=4, search="random", verifier="fid"),
    ],
    ids=lambda asked: str(asked["search"]),
)
def test_the_cluster_finds_what_a_search_in_one_process_finds(client: Client, request_: dict[str, Any]) -> None:
    job = client.wait(client.submit(request_))
    found = locally(job["request"])  # with what earlier jobs have taught
    assert job["status"] == "succeeded", job["error"]
    assert job["usage"]["nfe_wasted"] == 0
    images = [image["candidate"] for image in job["result"]["images"]]
    assert images == [image.candidate.model_dump(mode="json") for image in found.result.images]
    assert job["progress"] == found.progress.model_dump(mode="json")
    for png, picture in zip(client.images(job), found.images, strict=True):
        assert np.array_equal(pixels(png), picture.numpy())


def test_a_plan_is_what_a_search_spends(client: Client) -> None:
    request = body("k", budget={"nfe": 700}, search="trust_region")
    plan = client.plan(request)
    assert plan["plan"]["exact"] and plan["seconds"] > 0
    job = client.wait(client.submit(request))
    assert job["usage"]["nfe_search"] == plan["plan"]["nfe"]["search"]
    assert job["result"]["candidates"] == plan["plan"]["candidates"]


def test_an_extended_search_ends_where_one_of_the_whole_budget_does(client: Client) -> None:
    request = body("w", 8, seed=2, search={"algorithm": "random", "round_size": 4})
    job = client.wait(client.submit(request))
    extended = client.wait(client.extend(job, 16 * 8))
    whole = client.wait(client.submit(request | {"budget": {"nfe": 16 * 8}}))
    assert winner(extended) == winner(whole)
    assert extended["progress"]["curve"] == whole["progress"]["curve"]
    assert extended["progress"]["curve"][:2] == job["progress"]["curve"]
    with pytest.raises(Problem) as refused:
        client.extend(job, 5)
    assert refused.value.status == 422 and "nfe" in str(refused.value)


def test_a_prompt_is_searched_over_a_text_to_image_model(client: Client) -> None:
    request = {
        "model": "tiny-sd3",
        "condition": {"prompt": "a bold red italic serif Q on white"},
        "budget": {"nfe": 12},
        "verifier": "contrast",
        "seed": 1,
        "num_images": 2,
    }
    job = client.wait(client.submit(request))
    assert job["status"] == "succeeded", job["error"]
    assert job["progress"]["nfe_spent"] == 12 and job["progress"]["forwards_spent"] == 24
    first, second = (pixels(png) for png in client.images(job))
    assert first.shape == (16, 16, 3) and not np.array_equal(first, second)
    other = client.wait(client.submit(request | {"condition": {"prompt": "a thin blue j"}}))
    assert not np.array_equal(pixels(client.images(other)[0]), first)
    with pytest.raises(Problem, match="condition"):
        client.submit(request | {"condition": {"class": "Q"}})
