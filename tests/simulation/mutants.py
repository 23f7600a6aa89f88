"""Faults that were mended, put back one at a time: the simulation is worth what it finds of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

from sitsearch.workers.jobs.store import scripts
from sitsearch.workers.jobs.store.scripts import Scripts
from sitsearch.workers.serving import coordinator, persistence, work
from tests.simulation import service

_plain_text = scripts.text_of


def _lua(script: str, old: str, new: str) -> Callable[[], AbstractContextManager[Any]]:
    """A script in which `old` is `new`."""
    assert old in _plain_text(script), script

    def text(name: str) -> str:
        return _plain_text(name).replace(old, new) if name == script else _plain_text(name)

    return lambda: mock.patch.object(scripts, "text_of", text)


async def _at_once(call: Callable[[], Awaitable[Any]], what: str) -> Any:
    return await call()


async def _no_beat(self: service.Beat) -> None:
    await asyncio.Event().wait()


async def _not_to_disk(self: Scripts, name: str, keys: Any, args: Any) -> Any:
    return await self._run(name, keys, args)


#: By what is wrong.
MUTANTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "a store that is away fails the job": lambda: mock.patch.object(work, "patiently", _at_once),
    "the end of a job is said once only": lambda: mock.patch.object(coordinator, "patiently", _at_once),
    "rounds that the store has lost fail the job": lambda: mock.patch.object(coordinator, "REPLAYS", 0),
    "what is answered is not on disk yet": lambda: mock.patch.object(Scripts, "_run_to_disk", _not_to_disk),
    "leases are not renewed": lambda: mock.patch.object(service.Beat, "_beat", _no_beat),
    "lost replicas fail the job": lambda: mock.patch.object(persistence, "loss_of", lambda error: None),
    "claims are counted for ever": lambda: mock.patch.object(coordinator, "MAX_CLAIMS", 1),
    "any claim may write": _lua("append_round", "if refused then return {refused} end", ""),
    "any claim may end a job": _lua("finish", "if refused then return {refused} end", ""),
    "rounds need not be the next": _lua("append_round", "if due ~= tonumber(index) then return {'order', due} end", ""),
    "a key makes a job each time": _lua("submit", "if remember ~= '' then\n", "if false then\n"),
    "an ended job stays in line": _lua("finish", "redis.call('ZREM', leases, a.id)", ""),
    "canceling stops nothing": _lua("cancel", "status == 'queued' or status == 'running'", "status == 'queued'"),
}
