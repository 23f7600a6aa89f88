"""The request router's choice, without Serve's machinery round it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve._private.common import RequestMetadata
from ray.serve.request_router import PendingRequest

from sitsearch.workers.serving.affinity import key_of, ranked
from sitsearch.workers.serving.routing import SlotRouter

NAMES = [f"replica-{i}" for i in range(5)]
REPLICAS: list[Any] = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=name)) for name in NAMES]


async def chosen(key: str) -> tuple[list[list[str]], PendingRequest]:
    metadata = RequestMetadata(request_id="1", internal_request_id="1", multiplexed_model_id=key)
    pending = PendingRequest(args=[], kwargs={}, metadata=metadata)
    router = object.__new__(SlotRouter)
    ranks = await router.choose_replicas(REPLICAS, pending)
    return [[replica.replica_id.unique_id for replica in rank] for rank in ranks], pending


async def test_a_slot_has_its_replica_and_the_others_after_it() -> None:
    key = key_of("job", 2)
    assert (await chosen(key))[0] == [[name] for name in ranked(key, NAMES)]


async def test_a_call_without_a_slot_may_go_to_either_of_two() -> None:
    ranks, _ = await chosen("")
    assert len(ranks) == 1 and len({*ranks[0]}) == 2


@pytest.mark.parametrize("key", ["", key_of("job", 0)])
async def test_when_all_replicas_have_declined_there_is_a_wait(key: str) -> None:
    assert (await chosen(key))[1].routing_context.should_backoff
