"""The job store: everything that gateway and workers tell each other goes through here, in Redis.

Every change of several keys is one atomic script. The keys are described in `keys.py`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, ConnectionError, ResponseError, TimeoutError

from workers.jobs import scripts
from workers.jobs.errors import (
    IdempotencyConflict,
    JobCanceled,
    LeaseLost,
    LogConflict,
    QueueFull,
    StoreUnavailable,
)
from workers.jobs.keys import GROUP, Keys
from workers.jobs.schemas import Job, JobError, Offer, Progress, Result, Round, Status, Usage
from workers.settings import Settings

AWAY = (ConnectionError, TimeoutError, BusyLoadingError, OSError)
PAGE = 50


@dataclass(frozen=True)
class Claim:
    """A job under a lease. `fence` is larger with every claim; a write with an old one is refused."""

    job: Job
    fence: int
    entry: str
    consumer: str
    taken_over: bool


@contextlib.contextmanager
def _available() -> Any:
    try:
        yield
    except AWAY as error:
        raise StoreUnavailable(f"Redis does not answer: {error}") from error


def _ms(seconds: float) -> int:
    return max(1, int(seconds * 1000))


class JobStore:
    """Jobs in Redis.

    Every method raises StoreUnavailable when Redis does not answer.
    """

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis, self._settings = redis, settings
        self._keys = Keys(settings.key_prefix)
        self._scripts: dict[str, Any] = {}
        self._group_made = False

    @classmethod
    def from_url(cls, url: str, settings: Settings) -> JobStore:
        """A store at a `redis://` or `unix://` address."""
        return cls(Redis.from_url(url, socket_connect_timeout=5, socket_timeout=30, health_check_interval=30), settings)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """Raise StoreUnavailable when Redis does not answer."""
        with _available():
            await self._redis.ping()

    async def _run(self, script: str, keys: Sequence[str], args: Sequence[str | bytes | int | float]) -> list[bytes]:
        if script not in self._scripts:
            self._scripts[script] = self._redis.register_script(script)
        with _available():
            answer: list[bytes] = await self._scripts[script](keys=keys, args=args)
        return answer

    # --- jobs, as the gateway sees them ------------------------------------------------------------------------------

    async def submit(
        self, job: Job, *, idempotency_key: str | None = None, body_digest: str | None = None
    ) -> tuple[Job, bool]:
        """Write a job's record, its queue entry and its idempotency key in one step.

        Returns:
            The job, and whether it is new; a repeated key gives the first job.

        Raises:
            IdempotencyConflict: the key was used with another body.
            QueueFull: `max_queued` jobs have not ended yet.
        """
        record = {
            "request": job.request.model_dump_json(exclude_unset=True),
            "class_index": "" if job.class_index is None else str(job.class_index),
            "status": job.status.value,
            "created_at": repr(job.created_at),
            "progress": job.progress.model_dump_json(),
            "usage": job.usage.model_dump_json(),
        }
        keys = self._keys
        answer = await self._run(
            scripts.SUBMIT,
            [keys.queue, keys.jobs, keys.job(job.id), keys.events(job.id), keys.idempotency(idempotency_key or "")],
            [
                job.id,
                job.created_at,
                self._settings.max_queued,
                (body_digest or "-") if idempotency_key else "",
                _ms(self._settings.job_ttl),
                *(part for item in record.items() for part in item),
            ],
        )
        match answer[0]:
            case b"conflict":
                raise IdempotencyConflict("the Idempotency-Key was used before with another body")
            case b"full":
                raise QueueFull(f"{self._settings.max_queued} jobs have not ended yet")
            case b"known":
                known = await self.get(answer[1].decode())
                if known is None:
                    raise IdempotencyConflict("the job of this Idempotency-Key is no longer kept")
                return known, False
            case _:
                return job, True

    async def get(self, job_id: str) -> Job | None:
        """The job's record; None when there is none, or no longer."""
        with _available():
            raw = await self._redis.hgetall(self._keys.job(job_id))
        if not raw:
            return None
        fields = {key.decode(): value.decode() for key, value in raw.items()}
        loaded = {key: json.loads(fields[key]) for key in ("request", "progress", "usage", "result", "error") if key in fields}
        times = {key: float(fields[key]) for key in ("created_at", "started_at", "finished_at") if key in fields}
        class_index = int(fields["class_index"]) if fields["class_index"] else None
        return Job.model_validate(
            {"id": job_id, "class_index": class_index, "status": Status(fields["status"]), **loaded, **times}
        )

    async def list(
        self, *, status: Status | None = None, cursor: str | None = None, limit: int = PAGE
    ) -> tuple[list[Job], str | None]:
        """A page of jobs, newest first, and the cursor of the next page (None after the last).

        Raises:
            ValueError: the cursor is not one that this method gave.
        """
        start = int(cursor) if cursor is not None else 0
        if start < 0:
            raise ValueError(f"cursor {cursor!r} is not one of this service's")
        found: list[Job] = []
        while len(found) < limit:
            with _available():
                ids = await self._redis.zrevrange(self._keys.jobs, start, start + PAGE - 1)
            if not ids:
                return found, None
            for raw_id in ids:
                start += 1
                job = await self.get(raw_id.decode())
                if job is None:  # its record has expired: its place in the list goes too
                    with _available():
                        await self._redis.zrem(self._keys.jobs, raw_id)
                    start -= 1
                elif status is None or job.status is status:
                    found.append(job)
                    if len(found) == limit:
                        break
        return found, str(start)

    async def queue_position(self, job_id: str) -> int | None:
        """How many jobs are claimed before a queued one; None unless it is queued."""
        with _available():
            entry, status = await self._redis.hmget(self._keys.job(job_id), "entry", "status")
            if status != Status.QUEUED.value.encode() or entry is None:
                return None
            try:
                groups = await self._redis.xinfo_groups(self._keys.queue)
            except ResponseError:
                return None
            last = groups[0]["last-delivered-id"].decode() if groups else "0-0"
            ahead = await self._redis.xrange(self._keys.queue, f"({last}", f"({entry.decode()}", count=10_000)
        return len(ahead)

    async def cancel(self, job_id: str) -> Job | None:
        """Cancel a job unless it has ended; its coordinator notices at its next write. None when there is no such job."""
        keys = self._keys
        answer = await self._run(
            scripts.CANCEL,
            [keys.job(job_id), keys.queue, keys.events(job_id), keys.rounds(job_id)],
            [GROUP, _ms(self._settings.job_ttl), time.time()],
        )
        return None if answer[0] == b"unknown" else await self.get(job_id)

    async def image(self, job_id: str, candidate_id: str) -> bytes | None:
        """A candidate's PNG, if it is among the best and not expired."""
        with _available():
            png: bytes | None = await self._redis.hget(self._keys.images(job_id), candidate_id)
        return png

    async def events(self, job_id: str, last_id: str = "0-0", *, block: float = 15) -> AsyncIterator[tuple[str, str] | None]:
        """The job's events `(id, kind)` after `last_id`; None whenever `block` seconds brought nothing."""
        while True:
            with _available():
                read = await self._redis.xread({self._keys.events(job_id): last_id}, block=_ms(block), count=100)
            if not read:
                yield None
            for _, entries in read:
                for entry, fields in entries:
                    last_id = entry.decode()
                    yield last_id, fields[b"kind"].decode()

    async def wait(self, job_id: str, timeout: float) -> Job | None:
        """The job once it has ended, or as it stands after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        with _available():
            newest = await self._redis.xrevrange(self._keys.events(job_id), count=1)
        last = newest[0][0].decode() if newest else "0-0"
        while (job := await self.get(job_id)) is not None and not job.status.terminal:
            left = deadline - time.monotonic()
            if left <= 0:
                return job
            with _available():
                read = await self._redis.xread({self._keys.events(job_id): last}, block=_ms(min(left, 15)), count=100)
            if read:
                last = read[0][1][-1][0].decode()
        return job

    # --- jobs, as a coordinator sees them ------------------------------------------------------------------------------

    async def claim(self, consumer: str, *, block: float = 1.0) -> Claim | None:
        """The next job: one whose lease has run out, else a new one; None when `block` seconds brought none."""
        with _available():
            if not self._group_made:
                with contextlib.suppress(ResponseError):  # the group is there already
                    await self._redis.xgroup_create(self._keys.queue, GROUP, id="0", mkstream=True)
                self._group_made = True
            try:
                idle = _ms(self._settings.lease)
                _, entries, _ = await self._redis.xautoclaim(self._keys.queue, GROUP, consumer, idle, count=1)
                taken_over = bool(entries)
                if not entries:
                    read = await self._redis.xreadgroup(
                        GROUP, consumer, {self._keys.queue: ">"}, count=1, block=_ms(block)
                    )
                    entries = read[0][1] if read else []
            except ResponseError:  # the store was emptied under us
                self._group_made = False
                return None
        if not entries:
            return None
        entry, fields = entries[0]
        job_id = fields[b"job"].decode()
        keys = self._keys
        answer = await self._run(
            scripts.START, [keys.queue, keys.job(job_id), keys.events(job_id)], [entry, GROUP, time.time()]
        )
        if answer[0] == b"gone":
            return None
        job = await self.get(job_id)
        assert job is not None
        return Claim(job, int(answer[1]), entry.decode(), consumer, taken_over)

    async def renew(self, claim: Claim) -> None:
        """Keep a claimed job for another lease.

        Raises:
            LeaseLost, JobCanceled: the job is no longer this coordinator's.
        """
        answer = await self._run(
            scripts.RENEW,
            [self._keys.job(claim.job.id), self._keys.queue],
            [claim.fence, GROUP, claim.consumer, claim.entry],
        )
        _check(answer)

    async def rounds(self, job_id: str) -> list[Round]:
        """The round log."""
        with _available():
            raw = await self._redis.lrange(self._keys.rounds(job_id), 0, -1)
        return [Round.model_validate_json(text) for text in raw]

    async def append_round(
        self,
        claim: Claim,
        round: Round,
        *,
        progress: Progress,
        usage: Usage,
        images: Mapping[str, bytes],
        keep: Collection[str],
    ) -> None:
        """Log a round with the progress after it; add `images` and drop those whose candidate is not in `keep`.

        Raises:
            LeaseLost, JobCanceled: the job is no longer this coordinator's; nothing is written.
            LogConflict: the round's index is not the length of the log; nothing is written.
        """
        keys, job_id = self._keys, claim.job.id
        answer = await self._run(
            scripts.APPEND_ROUND,
            [keys.job(job_id), keys.rounds(job_id), keys.events(job_id), keys.images(job_id)],
            [
                claim.fence,
                round.round,
                round.model_dump_json(),
                progress.model_dump_json(),
                usage.model_dump_json(),
                _ms(self._settings.image_ttl),
                len(keep),
                *keep,
                *(part for item in images.items() for part in item),
            ],
        )
        _check(answer)
        if answer[0] == b"conflict":
            raise LogConflict(f"round {round.round} of job {job_id} does not follow a log of {int(answer[1])} rounds")

    async def finish(
        self,
        claim: Claim,
        *,
        status: Status,
        result: Result | None = None,
        error: JobError | None = None,
        usage: Usage | None = None,
    ) -> None:
        """Make a job terminal, once.

        Raises:
            LeaseLost, JobCanceled: the job is no longer this coordinator's.
        """
        parts = {"result": result, "error": error, "usage": usage}
        fields = {key: part.model_dump_json() for key, part in parts.items() if part is not None}
        fields["finished_at"] = repr(time.time())
        keys, job_id = self._keys, claim.job.id
        answer = await self._run(
            scripts.FINISH,
            [keys.job(job_id), keys.queue, keys.events(job_id), keys.rounds(job_id)],
            [
                claim.fence,
                GROUP,
                claim.entry,
                _ms(self._settings.job_ttl),
                status.value,
                *(part for item in fields.items() for part in item),
            ],
        )
        _check(answer)

    # --- what the workers tell the gateway ---------------------------------------------------------------------------

    async def publish_offer(self, offer: Offer) -> None:
        """Say what is offered, for `offer_ttl` seconds."""
        with _available():
            await self._redis.set(self._keys.offer, offer.model_dump_json(), px=_ms(self._settings.offer_ttl))

    async def offer(self) -> Offer | None:
        """What is offered; None when no workers have spoken lately."""
        with _available():
            raw = await self._redis.get(self._keys.offer)
        return None if raw is None else Offer.model_validate_json(raw)

    async def publish_worker_metrics(self, worker: str, values: Mapping[str, float]) -> None:
        """Keep a worker's counters for `/metrics`."""
        key = self._keys.worker(worker)
        with _available():
            await self._redis.hset(key, mapping=dict(values))
            await self._redis.pexpire(key, _ms(self._settings.offer_ttl * 4))

    async def worker_metrics(self) -> dict[str, dict[str, float]]:
        """The counters of every worker that has spoken lately."""
        metrics = {}
        with _available():
            async for key in self._redis.scan_iter(match=self._keys.worker("*"), count=1000):
                raw = await self._redis.hgetall(key)
                name = key.decode().removeprefix(self._keys.worker(""))
                metrics[name] = {field.decode(): float(value) for field, value in raw.items()}
        return metrics

    async def queue_depth(self) -> tuple[int, int]:
        """Jobs that wait, and jobs that run."""
        with _available():
            total = await self._redis.xlen(self._keys.queue)
            try:
                running = (await self._redis.xpending(self._keys.queue, GROUP))["pending"]
            except ResponseError:  # no coordinator has come up yet
                running = 0
        return total - running, running


def _check(answer: list[bytes]) -> None:
    if answer[0] == b"lost":
        raise LeaseLost("another coordinator has taken the job over")
    if answer[0] == b"canceled":
        raise JobCanceled("the job was canceled")
