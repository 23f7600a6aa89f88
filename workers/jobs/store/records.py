"""The forms in which jobs leave and enter Redis, and the small values that the store hands out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sitsearch.workers.jobs.errors import JobCanceled, LeaseLost, UnreadableRecord
from sitsearch.workers.jobs.job import CurvePoint, Job, Status
from sitsearch.workers.jobs.lenient import read

#: Seconds of one blocking read; shorter than any sensible socket timeout.
BLOCK = 2.0
#: An id before that of every event.
NO_EVENT = "0-0"
#: Of the records that this version writes. Readers take what they know of any.
SCHEMA = 2
_TERMINAL = {status.value for status in Status if status.terminal}


@dataclass(frozen=True)
class Claim:
    """A coordinator's hold on a job; every write under it is checked against the fencing token.

    Attributes:
        job: the job as it stood when it was claimed, already running.
        fence: how often the job was claimed, this time included.
        token: the fencing token, which no other claim has, not even one of a store that lost its last writes.
        taken_over: another coordinator had begun the job and fell silent.
        attempts: claims since a round was logged last, this one included.
    """

    job: Job
    fence: int
    token: str
    taken_over: bool
    attempts: int = 1

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
        data: for `round`, the progress without its curve, the curve's newest `point`, and `candidates` as
            `sitsearch.workers.jobs.shown.scores_of` tells them; else empty.
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
    """The fields of a job's hash: one JSON text each, but `id` and `status` as they are, for the scripts.

    The curve is kept apart, as it grows.
    """
    apart = job.model_copy(update={"progress": job.progress.model_copy(update={"curve": ()})})
    fields: dict[str, bytes | str] = {name: to_json(getattr(apart, name)) for name in Job.model_fields}
    return fields | {"id": job.id, "status": job.status.value, "schema": str(SCHEMA)}


def decode_job(fields: Mapping[bytes, bytes], curve: Sequence[bytes] = ()) -> Job:
    """The job of a hash; what a later version has put there besides is left alone.

    Args:
        fields: of the hash.
        curve: JSON of its points.

    Raises:
        UnreadableRecord: a field is missing, or is not what it should be.
    """
    texts = {name: fields[name.encode()] for name in Job.model_fields if name.encode() in fields}
    try:
        texts |= {name: to_json(texts[name].decode()) for name in ("id", "status")}
        body = b"{" + b",".join(b'"%b":%b' % (name.encode(), text) for name, text in texts.items()) + b"}"
        job = read(Job, body)
        if not curve:
            return job
        points = tuple(read(CurvePoint, point) for point in curve)
    except (KeyError, ValueError) as error:  # pydantic's are ValueErrors
        name, schema = fields.get(b"id", b"?").decode(errors="replace"), fields.get(b"schema", b"1").decode()
        raise UnreadableRecord(f"the record of job {name!r}, of schema {schema}, cannot be read: {error}") from error
    return job.model_copy(update={"progress": job.progress.model_copy(update={"curve": points})})


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
