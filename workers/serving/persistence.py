"""Calls of pools, made again where what carried them out was lost: the same recipe gives the same image elsewhere.

An order that ends every replica that it comes to is found by halving what was ordered with it, and is given up alone.
What is suspected of it waits in line, so that a replica which ends while one suspect runs tells something about it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum, auto
from typing import TypeVar

from ray.exceptions import NodeDiedError, OutOfMemoryError, RayActorError, RayError, RayTaskError, WorkerCrashedError
from ray.serve.exceptions import RayServeException

from sitsearch.workers.errors import SitsearchError

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds before a second call, which double, and the most that they come to.
PAUSE, MOST_PAUSE = 0.25, 15.0
#: Replicas that may end under a call before it is a suspect, and under a suspect before it is divided or given up.
SUSPECT, GUILTY = 2, 2
#: What a device says once nothing works on it any more; such a replica is as good as dead.
SICK = ("CUDA error", "device-side assert", "cudaError", "CUBLAS_STATUS", "CUDNN_STATUS")


class PoisonedOrder(SitsearchError):
    """An order ended every replica that it came to."""


class Loss(Enum):
    """What became of a call that was not answered: the replica died with it, or there was none to take it."""

    DIED = auto()
    AWAY = auto()


def loss_of(error: BaseException) -> Loss | None:
    """Whether a call failed for reasons that are not its own; None if they are."""
    if isinstance(error, RayTaskError):
        cause = error.cause
        if isinstance(cause, BaseException) and not isinstance(cause, RayTaskError):
            return loss_of(cause)
        return None
    if isinstance(error, RayActorError | OutOfMemoryError | WorkerCrashedError | NodeDiedError | TimeoutError):
        return Loss.DIED
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in SICK):
        return Loss.DIED
    return Loss.AWAY if isinstance(error, RayError | RayServeException) else None


class Persistence:
    """How the calls of one job are made again.

    Args:
        job: its id, for the log.
        suspects: the line that suspects of all jobs of this process wait in.
        lost: called with the places whose replica died.
    """

    def __init__(self, job: str, suspects: asyncio.Lock, lost: Callable[[Sequence[int]], None]) -> None:
        self._job, self._suspects, self._lost = job, suspects, lost

    async def whole(self, call: Callable[[], Awaitable[T]], seconds: float) -> T:
        """What a call answers that cannot be divided.

        Args:
            call: makes it.
            seconds: that it may take; who takes longer is taken for dead.

        Raises:
            PoisonedOrder: the replicas that took it died, one after the other.
        """
        ((_, answer),) = await self.divided([0], lambda _: call(), seconds)
        return answer

    async def divided(
        self,
        places: Sequence[int],
        call: Callable[[Sequence[int]], Awaitable[T]],
        seconds: float,
    ) -> list[tuple[Sequence[int], T]]:
        """What a call answers for some places, in one or several parts.

        Args:
            places: for which it is made.
            call: makes it for some of them.
            seconds: that it may take.

        Raises:
            PoisonedOrder: the replicas that took one of the places died, one after the other.
        """
        answer, died = await self._tried(places, call, seconds, SUSPECT)
        if not died:
            return [(places, answer)]  # type: ignore[list-item]
        async with self._suspects:
            return await self._alone(places, call, seconds)

    async def _alone(
        self, places: Sequence[int], call: Callable[[Sequence[int]], Awaitable[T]], seconds: float
    ) -> list[tuple[Sequence[int], T]]:
        answer, died = await self._tried(places, call, seconds, 1 if len(places) > 1 else GUILTY)
        if not died:
            return [(places, answer)]  # type: ignore[list-item]
        if len(places) == 1:
            deaths = SUSPECT + GUILTY
            raise PoisonedOrder(
                f"{deaths} replicas or more ended under the same order, the last {GUILTY} under it alone"
            )
        half = len(places) // 2
        first = await self._alone(places[:half], call, seconds)
        return first + await self._alone(places[half:], call, seconds)

    async def _tried(
        self,
        places: Sequence[int],
        call: Callable[[Sequence[int]], Awaitable[T]],
        seconds: float,
        deaths: int,
    ) -> tuple[T | None, bool]:
        """The answer, or whether so many replicas died; for as long as there is none, it waits."""
        pause = PAUSE
        while True:
            try:
                return await asyncio.wait_for(call(places), seconds), False
            except Exception as error:
                loss = loss_of(error)
                if loss is None:
                    raise
                log.warning("job %s calls again, %s: %s", self._job, loss.name.lower(), error)
            if loss is Loss.DIED:
                deaths -= 1
                self._lost(places)
                if not deaths:
                    return None, True
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)
