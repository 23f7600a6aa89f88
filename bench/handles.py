"""What a call through a Ray Serve handle takes of its caller's processor, between processes on one machine.

The replicas answer at once, so that what is left is Serve and Ray: choosing a replica, sending, and taking the answer.
"""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import Any

import ray
from ray import serve
from ray.serve.config import HTTPOptions

from sitsearch.workers.serving.affinity import key_of
from sitsearch.workers.serving.app import APP_NAME, QUIET, SLOTS

REPLICAS, IN_FLIGHT, CALLS = 2, 64, 2048


class _Instant:
    """Stands in for a sampler."""

    async def sample(self, job: str, orders: list[int]) -> list[int]:
        return orders


class _Caller:
    """Stands in for a coordinator."""

    def __init__(self, instant: Any) -> None:
        self._instant = instant

    async def measure(self) -> float:
        """Seconds of the processor that one of many calls takes."""
        # As a coordinator's, the calls are no part of a request: those would share its id, and wait for ever.
        return await asyncio.create_task(self._measure(), context=Context())

    async def _measure(self) -> float:
        await self._calls(CALLS // 4)  # warm-up
        begin = time.process_time()
        await self._calls(CALLS)
        return (time.process_time() - begin) / CALLS

    async def _calls(self, count: int) -> None:
        async def some() -> None:
            for number in range(count // IN_FLIGHT):
                slotted = self._instant.options(multiplexed_model_id=key_of(str(number), number))
                await slotted.sample.remote(str(number), [number])

        await asyncio.gather(*(some() for _ in range(IN_FLIGHT)))


def seconds_of_call() -> float:
    """Start Ray, measure, and stop it."""
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, namespace=APP_NAME)
    try:
        serve.start(http_options=HTTPOptions(location="NoServer"), logging_config=QUIET)
        options = {"ray_actor_options": {"num_cpus": 0.1}, "logging_config": QUIET}
        instant = serve.deployment(_Instant).options(
            num_replicas=REPLICAS, max_ongoing_requests=IN_FLIGHT, request_router_config=SLOTS, **options
        )
        handle = serve.run(
            serve.deployment(_Caller).options(**options).bind(instant.bind()), name=APP_NAME, route_prefix=None
        )
        found: float = handle.measure.remote().result()
        return found
    finally:
        serve.shutdown()
        ray.shutdown()
