"""How many sampler replicas queued work asks for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sitsearch.models.condition import Condition
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.trajectory import planned_rows
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.serving.scaling import QUEUED_SECONDS, QueuedWork, replicas_for
from tests.cluster.requests import body


@pytest.mark.parametrize(("seconds", "replicas"), [(0, 1), (9.9, 1), (10, 1), (10.1, 2), (95, 10)])
def test_each_replica_has_the_target_or_less(seconds: float, replicas: int) -> None:
    assert replicas_for(seconds, target=10) == replicas


@pytest.mark.parametrize(("metrics", "replicas"), [(None, 1), ({}, 1), ({QUEUED_SECONDS: {"a": 25.0, "b": 20.0}}, 5)])
def test_the_policy_adds_up_what_replicas_report(metrics: Any, replicas: int) -> None:
    context: Any = SimpleNamespace(aggregated_metrics=metrics)
    assert QueuedWork(10)(context) == (replicas, {})


def test_work_is_counted_in_network_rows() -> None:
    request = GenerateRequest.model_validate(body())
    whole = Recipe(seed=0, round=0, index=0).then(Integrate(to=1.0, steps=4))
    assert planned_rows(Order(whole, Condition(0), request.sampler)) == 4 * 2 * 2  # Heun, guided
    half = Recipe(seed=0, round=0, index=0).then(Integrate(to=0.5, steps=2), Integrate(to=1.0, steps=2))
    euler = SamplerChoice(method="euler", guidance=1.0)
    assert planned_rows(Order(half, Condition(0), euler, known=1)) == 2
