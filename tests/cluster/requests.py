"""Requests of the cluster's tests, and the same searches in this process."""

from __future__ import annotations

from typing import Any

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.condition import Condition
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.machine import network_dtype, take_machine
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.local import Found, run_request
from sitsearch.workers.search.runs.defaults import with_sampler


def body(label: str = "Q", candidates: int = 6, **changes: Any) -> dict[str, Any]:
    """A small search, of which `changes` replace fields."""
    return {
        "condition": {"class": label},
        "budget": {"nfe": candidates * 8},
        "seed": 11,
        "verifier": "classifier",
        "search": {"algorithm": "random", "round_size": 4},
        "sampler": {"method": "heun", "steps": 4, "guidance": 1.5},
    } | changes


def locally(request: dict[str, Any]) -> Found:
    """The same request in this process, with the settings of the service."""
    take_machine()
    card = model_card("glyphs")
    asked = GenerateRequest.model_validate(request)
    asked = with_sampler(asked, SamplerChoice(**card.sampler), METHODS.values())
    return run_request(
        Engine(load_generator("glyphs", dtype=network_dtype("auto", "cpu"))),
        {name: load_verifier(name) for _, name in asked.verifiers},
        asked,
        conditions=[Condition(card.classes.index(str(one.class_))) for one in asked.condition.each],
    )


def winner(job: dict[str, Any]) -> dict[str, Any]:
    """The winning candidate of a job."""
    return job["result"]["images"][0]["candidate"]
