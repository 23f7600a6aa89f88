"""An event loop on virtual time: where nothing is ready to run, the clock jumps to what is due next."""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

#: Seconds since the epoch when every simulation begins.
BEGIN = 1_000_000.0


class Deadlock(Exception):
    """Nothing will ever happen any more."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop without input and output from outside, whose time passes only where everyone waits.

    Attributes:
        now: seconds since the epoch.
    """

    def __init__(self) -> None:
        self.now = BEGIN
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now

    def complete(self, work: Coroutine[Any, Any, None], seconds: float) -> None:
        """Run `work` to its end, and whatever else is under way to no end.

        Raises:
            TimeoutError: it takes longer than so many seconds.
            Deadlock: see the class.
        """
        try:
            self.run_until_complete(asyncio.wait_for(work, seconds))
        finally:
            while tasks := asyncio.all_tasks(self):
                for task in tasks:
                    task.cancel()
                self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Deadlock
        self._loop.now += max(0.0, timeout) + 1e-9
        return []


@contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """A virtual loop by whose clock `time.time` and `time.monotonic` go, too."""
    loop = VirtualLoop()
    with mock.patch.object(time, "time", loop.time), mock.patch.object(time, "monotonic", loop.time):
        try:
            yield loop
        finally:
            loop.close()
