"""A disk without room: it is said so, nothing new is taken, what is there can be read and canceled, and it heals."""

from __future__ import annotations

from pathlib import Path

import httpx

from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import Extension
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings
from tests.service.gateway.conftest import OFFER, body, problem, serving
from tests.workers.jobs.store.makers import claimed, succeeded

ALL = 2**62


async def test_a_full_disk_is_called_that_and_heals(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey:
        settings = Settings(_env_file=None, redis_url=valkey.url)
        store = JobStore.from_url(valkey.url, settings)
        await store.publish_offer(OFFER)
        running, done = await claimed(store), await succeeded(store)
        with serving(settings) as url, httpx.Client(base_url=url, trust_env=False) as client:
            assert not valkey.heed_disk(store.keys.tight, room=ALL)
            assert (await store.redis.config_get("appendfsync"))["appendfsync"] == "everysec"
            problem(client.post("/generate", json=body()), 507, "disk-full")
            problem(client.post(f"/jobs/{done.id}/extend", json={"nfe": 4000}), 507, "disk-full")
            problem(client.get("/readyz"), 507, "disk-full")
            assert client.get(f"/jobs/{done.id}").json()["status"] == "succeeded"
            assert client.post(f"/jobs/{running.job.id}/cancel").json()["status"] == "canceled"
            assert valkey.heed_disk(store.keys.tight, room=0)
            assert (await store.redis.config_get("appendfsync"))["appendfsync"] == "always"
            assert client.get("/readyz").status_code == 200
            assert client.post("/generate", json=body()).status_code == 202
        await store.extend(done, Extension(after_round=1, nfe=40))
        await store.aclose()
