"""Waiting for a store that is away: what it cannot take now it is given again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sitsearch.workers.jobs.errors import StoreUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds before the second try, which double, and the most that they come to.
PAUSE, MOST = 0.05, 2.0
#: Seconds between two lines in the log that say so.
SAID = 30.0


async def patiently(call: Callable[[], Awaitable[T]], what: str) -> T:
    """Make a call of the store until it is there to answer.

    A write under a claim may be tried for as long as it takes. If the store was away for this process alone and another
    has the job by now, the fencing token says so once it is there again; if it was away for all, nobody has.

    Args:
        call: makes it.
        what: it is about, for the log.
    """
    pause, said = PAUSE, -SAID
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if time.monotonic() - said > SAID:
                said = time.monotonic()
                log.warning("%s waits for the store: %s", what, error)
        await asyncio.sleep(pause)
        pause = min(2 * pause, MOST)
