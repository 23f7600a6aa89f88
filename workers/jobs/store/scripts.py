"""Every change of more than one key: one short Lua script each, run atomically by Redis, behind a typed function.

Redis runs a script as a whole or not at all and nothing else between its lines, so a job's record, its queue entry, its
indexes and its events never disagree, whatever dies when. Every script may run twice (a client whose connection broke
after the write sends it again): the second run answers as the first did and changes nothing.

The scripts lie beside this file in `lua/`. In them, `KEYS` are named in the order of the typed function's `keys` list.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sitsearch.workers.jobs.job import Status
from sitsearch.workers.jobs.store.keys import CANCELLATIONS_KEPT, EVENTS_KEPT, GROUP, LESSONS_KEPT, LESSONS_TTL, Keys

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

LUA = Path(__file__).parent / "lua"


@cache
def text_of(name: str) -> str:
    """The text of script `name`: its file, after the files in `shared/` that its lines `-- include: NAME` ask for."""
    text = (LUA / f"{name}.lua").read_text()
    shared = re.findall(r"^-- include: (\w+)$", text, re.MULTILINE)
    return "".join([*((LUA / "shared" / f"{part}.lua").read_text() for part in shared), text])


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


class Scripts:
    """The scripts over one Redis; durations are in seconds. Replies are those of the Lua, undecoded.

    Args:
        redis: a client that does not decode replies.
        keys: the deployment's keys.
    """

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis, self._keys = redis, keys
        self._registered: dict[str, AsyncScript] = {}

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> list[Any]:
        return cast(list[Any], await self._script(name)(keys=list(keys), args=list(args)))

    def _script(self, name: str) -> AsyncScript:
        if name not in self._registered:
            self._registered[name] = self._redis.register_script(text_of(name))
        return self._registered[name]

    async def submit(
        self,
        job_id: str,
        fields: Mapping[str, bytes | str],
        *,
        now: float,
        limit: int,
        idempotency_key: str | None,
        digest: str,
        remember: float,
    ) -> tuple[bytes, str]:
        """Record and queue a job; `(created | known | conflict | full, id of the job that it is about)`."""
        k = self._keys
        idempotency = k.idempotency(idempotency_key or "")
        keys = [k.job(job_id), k.queue, k.waiting, k.submitted, k.events(job_id), idempotency, k.expiry, *k.indexes()]
        ttl = "" if idempotency_key is None else str(_ms(remember))
        pairs = [part for pair in fields.items() for part in pair]
        outcome, about = await self._run("submit", keys, [job_id, now, limit, digest, ttl, EVENTS_KEPT, *pairs])
        return outcome, about.decode()

    async def steal(self, consumer: str, lease: float) -> tuple[bytes, str] | None:
        """Give `consumer` the oldest queue entry that was silent for `lease`; `(message, job id)`."""
        reply = await self._run("steal", [self._keys.queue], [GROUP, consumer, _ms(lease)])
        return (reply[0], reply[1].decode()) if reply else None

    async def take(self, job_id: str, consumer: str, message: bytes, *, now: float) -> tuple[bytes, list[bytes]] | None:
        """Raise the fencing token and mark the job running; `(status before, fields)`, or None if it is not to run."""
        k = self._keys
        indexes = (k.of_status(Status.QUEUED), k.of_status(Status.RUNNING))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.events(job_id)]
        reply = await self._run("take", keys, [job_id, GROUP, consumer, message, now])
        return (reply[0], reply[1]) if reply else None

    async def renew(self, held: Sequence[tuple[str, int]]) -> list[bytes]:
        """Heartbeats of jobs, by id and fence, in one round trip; `ok`, `lost` or `canceled` each."""
        script = self._script("renew")
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id, fence in held:
                await script(keys=[self._keys.job(job_id), self._keys.queue], args=[fence, GROUP], client=pipe)
            return [reply[0] for reply in await pipe.execute()]

    async def append_round(
        self,
        job_id: str,
        fence: int,
        *,
        index: int,
        texts: Sequence[bytes | str],
        keep: Sequence[str],
        images: Mapping[str, bytes],
        image_ttl: float,
    ) -> tuple[bytes, int]:
        """Log a round, with heartbeat; `texts` are the JSON of round, progress, usage, best ids and event.

        Returns:
            `ok`, `lost`, `canceled`, or `order` with the index that is due.
        """
        k = self._keys
        keys = [k.job(job_id), k.queue, k.rounds(job_id), k.images(job_id), k.events(job_id)]
        pairs = [part for pair in images.items() for part in pair]
        args = [fence, GROUP, index, *texts, EVENTS_KEPT, _ms(image_ttl), len(keep), *keep, *pairs]
        outcome, *due = await self._run("append_round", keys, args)
        return outcome, due[0] if due else index

    async def finish(
        self,
        job_id: str,
        fence: int,
        status: Status,
        *,
        texts: Sequence[bytes | str],
        now: float,
        job_ttl: float,
        image_ttl: float,
    ) -> bytes:
        """Make a job terminal; `texts` are the JSON of result, error and usage. `ok`, `lost` or `canceled`."""
        k = self._keys
        indexes = (k.of_status(Status.RUNNING), k.of_status(status))
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.expiry, *own]
        args = [job_id, fence, GROUP, status.value, now, _ms(job_ttl), _ms(image_ttl), *texts]
        return cast(bytes, (await self._run("finish", keys, args))[0])

    async def cancel(self, job_id: str, *, now: float, job_ttl: float, image_ttl: float) -> bytes:
        """Make a job that has not ended canceled; its status before, or `unknown`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.RUNNING, Status.CANCELED)]
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, *indexes, k.expiry, *own, k.cancellations]
        args: list[str | float] = [job_id, GROUP, now, _ms(job_ttl), _ms(image_ttl), CANCELLATIONS_KEPT]
        reply = await self._run("cancel", keys, args)
        return cast(bytes, reply[0])

    async def extend(
        self, job_id: str, *, before: bytes, after: bytes, length: int, progress: bytes, image_ttl: float
    ) -> bytes:
        """Queue a job that succeeded once more; `before`, `after`: JSON of its extensions. `ok` or `changed`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.SUCCEEDED)]
        own = (k.events(job_id), k.rounds(job_id), k.images(job_id))
        keys = [k.job(job_id), k.queue, k.waiting, k.submitted, *indexes, k.expiry, *own]
        args: list[str | bytes | float] = [job_id, before, after, length, progress, _ms(image_ttl)]
        return cast(bytes, (await self._run("extend", keys, args))[0])

    async def teach(self, job_id: str, lessons: str, added: Mapping[str, float]) -> bytes:
        """Add to the sums under the key `lessons`, once for a job; `ok`, `known`, or `gone` if it has not succeeded."""
        pairs = [part for name, value in added.items() for part in (name, repr(float(value)))]
        reply = await self._run("teach", [self._keys.job(job_id), lessons], [_ms(LESSONS_TTL), LESSONS_KEPT, *pairs])
        return cast(bytes, reply[0])

    async def count(self, *, now: float) -> dict[Status, int]:
        """How many jobs are in each status, expired ones taken out."""
        counts = await self._run("count", [self._keys.expiry, *self._keys.indexes()], [now])
        return dict(zip(Status, counts, strict=True))

    async def forget_consumers(self, idle: float) -> None:
        """Drop consumers that hold nothing and were not heard of for `idle`."""
        await self._run("forget_consumers", [self._keys.queue], [GROUP, _ms(idle)])
