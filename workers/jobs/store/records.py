"""The forms in which jobs leave and enter Redis, and the small values that the store hands out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost
from sitsearch.workers.jobs.job import Job, Status

#: Seconds of one blocking read; shorter than any sensible socket timeout.
BLOCK = 2.0
#: An id before that of every event.
NO_EVENT = "0-0"
_TERMINAL = {status.value for status in Status if status.terminal}


@dataclass(frozen=True)
class Claim:
    """A coordinator's hold on a job; every write under it is checked against the fencing token.

    Attributes:
        job: the job as it stood when it was claimed, already running.
        fence: the fencing token, 1 for the first claim; a later claim has a larger one.
        message_id: the job's entry in the queue's stream.
        taken_over: another coordinator had begun the job and fell silent.
    """

    job: Job
    fence: int
    message_id: bytes
    taken_over: bool

    def refusal(self, outcome: bytes) -> LeaseLost | JobCanceled | None:
        """What a script's answer to a write under this claim means; None if the claim holds."""
        if outcome == b"canceled":
            return JobCanceled(self.job.id)
        return LeaseLost(self.job.id) if outcome == b"lost" else None

    def check(self, outcome: bytes) -> None:
        """Raise the refusal, if it is one."""
        if refusal := self.refusal(outcome):
            raise refusal


@dataclass(frozen=True)
class Event:
    """Something that happened to a job.

    Attributes:
        type: `queued`, `running`, `round`, a terminal status, or `snapshot` (where the reader starts).
        data: for `round`, the progress without its curve and the curve's newest `point`; else empty.
    """

    type: str
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """No event follows."""
        return self.type in _TERMINAL


@dataclass(frozen=True)
class Snapshot:
    """A job with what its view needs, read at one moment.

    Attributes:
        job: the record.
        queue_position: jobs ahead of it in the queue; None once it has left the queue.
        best: ids of the candidates whose images are held, the best so far first.
        last_event: id of its newest event.
    """

    job: Job
    queue_position: int | None
    best: tuple[str, ...]
    last_event: str


def to_json(value: Any) -> bytes:
    """JSON of a schema object, of a sequence of them, of a plain value or None."""
    if hasattr(value, "model_dump_json"):
        return cast(str, value.model_dump_json()).encode()
    return json.dumps(value, default=lambda item: item.model_dump(mode="json")).encode()


def encode_job(job: Job) -> dict[str, bytes | str]:
    """The fields of a job's hash: one JSON text each, but `id` and `status` as they are, for the scripts."""
    fields: dict[str, bytes | str] = {name: to_json(getattr(job, name)) for name in Job.model_fields}
    return fields | {"id": job.id, "status": job.status.value}


def decode_job(fields: Mapping[bytes, bytes]) -> Job:
    """The job of a hash; fields that are not the job's own are left out."""
    texts = {name: fields[name.encode()] for name in Job.model_fields if name.encode() in fields}
    texts |= {name: to_json(texts[name].decode()) for name in ("id", "status")}
    return Job.model_validate_json(b"{" + b",".join(b'"%b":%b' % (n.encode(), t) for n, t in texts.items()) + b"}")


def event_order(event_id: str) -> tuple[int, int]:
    """An event's id as the pair of numbers that orders it.

    Raises:
        ValueError: it is no id of a Redis stream.
    """
    milliseconds, dash, sequence = event_id.partition("-")
    if not (dash and event_id.isascii() and milliseconds.isdigit() and sequence.isdigit() and len(event_id) <= 41):
        raise ValueError(f"{event_id[:80]!r} is not the id of an event")
    pair = int(milliseconds), int(sequence)
    if max(pair) >= 2**64:
        raise ValueError(f"{event_id!r} is not the id of an event")
    return pair


def stream_entries(reply: Any) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries of the one stream that was read; the reply is a list or a map of streams, by protocol version."""
    if not reply:
        return []
    return cast(list[Any], next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1])
