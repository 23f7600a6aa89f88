"""Every change of more than one key: one short Lua script each, run atomically by Redis, behind a typed function.

Redis runs a script as a whole or not at all and nothing else between its lines, so a job's record, its queue entry, its
indexes and its events never disagree, whatever dies when. Every script may run twice (a client whose connection broke
after the write sends it again): the second run answers as the first did and changes nothing.

The scripts lie beside this file in `lua/`. In them, `KEYS` are named in the order of the typed function's `keys` list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from redis import exceptions as failures

from sitsearch.workers.jobs.job import Status
from sitsearch.workers.jobs.store.keys import (
    CANCELLATIONS_KEPT,
    EVENTS_KEPT,
    LESSONS_KEPT,
    LESSONS_TTL,
    WAKEUPS_KEPT,
    Keys,
)

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

LUA = Path(__file__).parent / "lua"
#: Seconds that a write which is to be on disk may take to get there.
SYNC_TIMEOUT = 4.0


class NotOnDisk(failures.TimeoutError):
    """A write was carried out, and it is not known to be on disk."""


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
        self._tells_of_disk = True

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> list[Any]:
        return cast(list[Any], await self._script(name)(keys=list(keys), args=list(args)))

    async def _run_to_disk(self, name: str, keys: Sequence[str], args: Sequence[str | bytes | float]) -> list[Any]:
        """The same, and return once the append-only file is on disk, where the server has one and can say so."""
        if not self._tells_of_disk:
            return await self._run(name, keys, args)
        script = self._script(name)
        async with self._redis.pipeline(transaction=False) as pipe:  # WAITAOF is about its own connection's writes
            await script(keys=list(keys), args=list(args), client=pipe)
            pipe.execute_command("WAITAOF", 1, 0, _ms(SYNC_TIMEOUT))
            reply, synced = await pipe.execute(raise_on_error=False)
        if isinstance(reply, Exception):
            raise reply
        if isinstance(synced, failures.ResponseError):  # no append-only file, or a server that is older than WAITAOF
            self._tells_of_disk = False
        elif isinstance(synced, Exception):
            raise synced
        elif synced[0] < 1:
            raise NotOnDisk(f"written, but not on disk after {SYNC_TIMEOUT:g} s")
        return cast(list[Any], reply)

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
        nfe: int,
        most: int,
        idempotency_key: str | None,
        digest: str,
        remember: float,
    ) -> tuple[bytes, str]:
        """Record and queue a job; `(created | known | conflict | full | busy, id of the job that it is about)`.

        Args:
            job_id, fields, now: the job.
            limit, most: jobs that may wait, and NFE that they may spend together; one job may always wait.
            nfe: that it may spend.
            idempotency_key, digest, remember: see `Queue.submit`; for how long the key is remembered.
        """
        k = self._keys
        idempotency = k.idempotency(idempotency_key or "")
        keys = [k.job(job_id), k.waiting, k.submitted, k.wakeups, k.events(job_id), idempotency, k.owed]
        keys += [k.expiry, *k.indexes()]
        ttl = "" if idempotency_key is None else str(_ms(remember))
        pairs = [part for pair in fields.items() for part in pair]
        args = [job_id, now, limit, nfe, most, digest, ttl, EVENTS_KEPT, WAKEUPS_KEPT, *pairs]
        outcome, about = await self._run_to_disk("submit", keys, args)
        return outcome, about.decode()

    async def next(self, held: Collection[str]) -> str | None:
        """The job that is to be claimed next, one that the caller does not hold."""
        k = self._keys
        indexes = (k.of_status(Status.RUNNING), k.of_status(Status.QUEUED))
        reply = await self._run("next", [k.leases, k.waiting, *indexes, k.submitted], [*held])
        return reply[0].decode() if reply else None

    async def take(
        self, job_id: str, consumer: str, nonce: str, *, now: float, lease: float
    ) -> tuple[bytes, list[bytes]] | None:
        """Raise the fencing token and mark the job running, if it waits or its lease has run out.

        Returns:
            `queued`, `running` or `released`, as it was before, and its fields; None if it is not to be had.
        """
        k = self._keys
        indexes = (k.of_status(Status.QUEUED), k.of_status(Status.RUNNING))
        keys = [k.job(job_id), k.waiting, k.leases, *indexes, k.events(job_id), k.owed]
        reply = await self._run("take", keys, [job_id, consumer, nonce, now, _ms(lease)])
        return (reply[0], reply[1]) if reply else None

    async def renew(self, held: Sequence[tuple[str, str]], lease: float) -> list[bytes]:
        """Heartbeats of jobs, by id and token, in one round trip; `ok`, `lost` or `canceled` each."""
        script = self._script("renew")
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id, token in held:
                keys = [self._keys.job(job_id), self._keys.leases]
                await script(keys=keys, args=[job_id, token, _ms(lease)], client=pipe)
            return [reply[0] for reply in await pipe.execute()]

    async def release(self, job_id: str, token: str) -> bytes:
        """Give a lease back; `ok`, `lost` or `canceled`."""
        k = self._keys
        reply = await self._run("release", [k.job(job_id), k.leases, k.wakeups], [job_id, token, WAKEUPS_KEPT])
        return cast(bytes, reply[0])

    async def append_round(
        self,
        job_id: str,
        token: str,
        *,
        lease: float,
        index: int,
        texts: Sequence[bytes | str],
        point: bytes,
        points: int,
        keep: Sequence[str],
        images: Mapping[str, bytes],
        image_ttl: float,
    ) -> tuple[bytes, int]:
        """Log a round, with heartbeat; `texts` are the JSON of round, progress, usage, best ids and event.

        Args:
            job_id, token, lease, index, texts, keep, images, image_ttl: see `Rounds.append_round`.
            point: JSON of the curve's last point; empty if it has none.
            points: how many the curve has with it. If it has as many already, the last is replaced.

        Returns:
            `ok`, `lost`, `canceled`, or `order` with the index that is due.
        """
        k = self._keys
        keys = [k.job(job_id), k.leases, *k.own(job_id)]
        pairs = [part for pair in images.items() for part in pair]
        limits = [EVENTS_KEPT, _ms(image_ttl), len(keep)]
        args = [job_id, token, _ms(lease), index, *texts, point, points, *limits, *keep, *pairs]
        outcome, *due = await self._run("append_round", keys, args)
        return outcome, due[0] if due else index

    async def note(self, job_id: str, token: str, text: bytes) -> bytes:
        """Say what a running job waits for, as JSON; `ok`, `lost` or `canceled`."""
        return cast(bytes, (await self._run("note", [self._keys.job(job_id)], [token, text]))[0])

    async def finish(
        self,
        job_id: str,
        token: str,
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
        keys = [k.job(job_id), k.waiting, k.owed, k.leases, *indexes, k.expiry, *k.own(job_id)]
        args = [job_id, token, status.value, now, _ms(job_ttl), _ms(image_ttl), *texts]
        return cast(bytes, (await self._run_to_disk("finish", keys, args))[0])

    async def cancel(self, job_id: str, *, now: float, job_ttl: float, image_ttl: float) -> bytes:
        """Make a job that has not ended canceled; its status before, or `unknown`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.RUNNING, Status.CANCELED)]
        keys = [k.job(job_id), k.waiting, k.owed, k.leases, *indexes, k.expiry, *k.own(job_id), k.cancellations]
        args: list[str | float] = [job_id, now, _ms(job_ttl), _ms(image_ttl), CANCELLATIONS_KEPT]
        return cast(bytes, (await self._run_to_disk("cancel", keys, args))[0])

    async def leave(self, job_id: str, token: str, *, texts: Sequence[bytes | str]) -> bytes:
        """Add to a canceled job the JSON of result and usage; `ok` or `lost`."""
        return cast(bytes, (await self._run("leave", [self._keys.job(job_id)], [token, *texts]))[0])

    async def extend(
        self, job_id: str, *, before: bytes, after: bytes, length: int, progress: bytes, nfe: int, image_ttl: float
    ) -> bytes:
        """Queue a job that succeeded once more; `before`, `after`: JSON of its extensions. `ok` or `changed`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.SUCCEEDED)]
        keys = [k.job(job_id), k.waiting, k.owed, k.submitted, k.wakeups, *indexes, k.expiry, *k.own(job_id)]
        args: list[str | bytes | float] = [job_id, before, after, length, progress, nfe, _ms(image_ttl), WAKEUPS_KEPT]
        return cast(bytes, (await self._run_to_disk("extend", keys, args))[0])

    async def resume(self, job_id: str, *, nfe: int, image_ttl: float) -> bytes:
        """Queue a job that failed or was canceled once more; `ok` or `changed`."""
        k = self._keys
        indexes = [k.of_status(status) for status in (Status.QUEUED, Status.FAILED, Status.CANCELED)]
        keys = [k.job(job_id), k.waiting, k.owed, k.submitted, k.wakeups, *indexes, k.expiry, *k.own(job_id)]
        args: list[str | bytes | float] = [job_id, nfe, _ms(image_ttl), WAKEUPS_KEPT]
        return cast(bytes, (await self._run_to_disk("resume", keys, args))[0])

    async def teach(self, job_id: str, lessons: str, added: Mapping[str, float]) -> bytes:
        """Add to the sums under the key `lessons`, once for a job; `ok`, `known`, or `gone` if it has not succeeded."""
        pairs = [part for name, value in added.items() for part in (name, repr(float(value)))]
        reply = await self._run("teach", [self._keys.job(job_id), lessons], [_ms(LESSONS_TTL), LESSONS_KEPT, *pairs])
        return cast(bytes, reply[0])

    async def count(self, *, now: float) -> dict[Status, int]:
        """How many jobs are in each status, expired ones taken out."""
        counts = await self._run("count", [self._keys.expiry, *self._keys.indexes()], [now])
        return dict(zip(Status, counts, strict=True))
