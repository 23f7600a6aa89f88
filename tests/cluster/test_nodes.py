"""Pools over the nodes of a Ray cluster: a head and two nodes on this machine, each with room for one sampler."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.serve.config import HTTPOptions

from sitsearch.models.catalog import model_card
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import Job, Status
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.serving.app import APP_NAME, build
from sitsearch.workers.settings import Settings
from tests.cluster.requests import body, locally

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

#: What Ray is to count of a node: the GPU, which is none, makes it a place for one sampler.
NODE = {"num_cpus": 4, "num_gpus": 1}
HEAD = {"num_cpus": 0, "include_dashboard": False}
PATHS = {"algorithm": "paths", "paths": 2, "branches": 4, "start": 0.6, "delta_f": 0.1, "delta_b": 0.3}


@dataclass(frozen=True)
class Nodes:
    """A running application on a cluster of nodes."""

    cluster: Cluster
    workers: list[Any]
    settings: Settings


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with EmbeddedValkey(Path(tmp_path_factory.mktemp("valkey"))) as valkey, pytest.MonkeyPatch.context() as patch:
        # What keeps Ray on the loopback interface where it is not to be a cluster; it is read once, and by children.
        patch.setattr("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        cluster = Cluster(initialize_head=True, head_node_args=HEAD)
        try:
            workers = [cluster.add_node(**NODE) for _ in range(2)]
            ray.init(address=cluster.address, namespace=APP_NAME, log_to_driver=False)
            overrides: dict[str, Any] = {"redis_url": valkey.url, "sampler_replicas": 2, "sampler_gpus": 1, "lease": 3}
            overrides["verifiers"] = ["classifier"]
            serve.start(http_options=HTTPOptions(location="NoServer"))
            serve.run(build(overrides), name=APP_NAME, route_prefix=None)
            yield Nodes(cluster, workers, Settings(**overrides))
        finally:
            serve.shutdown()
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
async def store(nodes: Nodes) -> AsyncIterator[JobStore]:
    assert nodes.settings.redis_url is not None
    store = JobStore.from_url(nodes.settings.redis_url, nodes.settings)
    yield store
    await store.aclose()


async def submitted(store: JobStore, request: dict[str, Any]) -> Job:
    """The request as the gateway would queue it."""
    card = model_card("glyphs")
    job = Job(
        id=uuid.uuid4().hex,
        request=GenerateRequest.model_validate(request),
        class_indices=(card.classes.index(request["condition"]["class"]),),
        created_at=time.time(),
    )
    await store.submit(job)
    return job


@pytest.mark.parametrize("search", [PATHS, "lookahead"], ids=["paths", "lookahead"])
async def test_a_search_over_nodes_finds_what_one_process_finds_and_makes_no_state_twice(
    nodes: Nodes, store: JobStore, search: Any
) -> None:
    taken = ray.cluster_resources()["GPU"] - ray.available_resources().get("GPU", 0)
    assert taken == 2, "each sampler is on a node of its own"
    request = body(budget={"nfe": 300}, search=search)
    ended = await store.wait((await submitted(store, request)).id, timeout=120)
    expected = locally(request)
    assert ended.status is Status.SUCCEEDED and ended.result is not None
    assert ended.result.images[0].candidate == expected.result.images[0].candidate
    assert ended.progress.curve == expected.progress.curve
    assert ended.usage.nfe_wasted == 0, "every state was at hand where it was wanted"


async def test_a_node_that_is_lost_in_mid_search_costs_nothing_but_work(nodes: Nodes, store: JobStore) -> None:
    request = body(budget={"nfe": 1500}, search=PATHS, seed=12)
    job = await submitted(store, request)
    while (await store.get(job.id) or job).progress.round < 2:
        time.sleep(0.05)
    nodes.cluster.remove_node(nodes.workers[1])
    nodes.cluster.add_node(**NODE)  # as an autoscaler or an operator would
    ended = await store.wait(job.id, timeout=200)
    assert ended.status is Status.SUCCEEDED and ended.result is not None
    expected = locally(request)
    assert ended.result.images[0].candidate == expected.result.images[0].candidate
    assert ended.progress.curve == expected.progress.curve
    assert ended.usage.nfe_wasted > 0
