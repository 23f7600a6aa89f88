"""The engine's way to the verifier pools: the gradients that guide trajectories."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import torch
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_exponential
from torch import Tensor

from sitsearch.workers.engine.gradients import Wanted
from sitsearch.workers.serving.persistence import loss_of

#: Calls of a pool before its replicas' deaths are the order's; the first pause between them in seconds, which doubles.
ATTEMPTS, PAUSE = 5, 0.25


class Guides:
    """Asks verifier pools for gradients, from the engine's thread, on the replica's event loop.

    Args:
        model: whose states they are of.
        verifiers: handle of the verifier deployment by verifier name.
        loop: the replica's.
        came: called, on the loop, when some have come.
    """

    def __init__(
        self,
        model: str,
        verifiers: Mapping[str, DeploymentHandle],
        loop: asyncio.AbstractEventLoop,
        came: Callable[[], None],
    ) -> None:
        self._model, self._verifiers, self._loop, self._came = model, verifiers, loop, came

    def __call__(self, wanted: Wanted) -> Future[Tensor]:
        """See `Source`."""
        future = asyncio.run_coroutine_threadsafe(self._asked(wanted, wanted.x.cpu()), self._loop)
        future.add_done_callback(lambda _: self._came())
        return future

    async def _asked(self, wanted: Wanted, x: Tensor) -> Tensor:
        """Ask again when a replica dies: the same states have the same gradients."""
        if wanted.verifier not in self._verifiers:
            raise ValueError(f"no verifier {wanted.verifier!r} to be guided by; there are {', '.join(self._verifiers)}")
        call = self._verifiers[wanted.verifier].gradients
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: loss_of(error) is not None),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=PAUSE),
            reraise=True,
        ):
            with attempt:
                found = await call.remote(self._model, x.numpy(), wanted.conditions, wanted.views)
        return torch.from_numpy(found.copy())  # Ray hands out read-only memory
