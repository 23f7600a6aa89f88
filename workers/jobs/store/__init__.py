"""The job store: every word between gateway and workers that must outlive a process, kept in Redis.

A job is a hash with one JSON text a field of `Job`, so a script can change its status without parsing JSON (Lua would
round 64-bit seeds). Beside these fields it holds the claim: `fence`, `consumer` and `message` (the queue entry);
`best`, the ids of the best candidates so far; and `taught`, once it has taught others. Keys are in `keys`, atomic
changes in `scripts`. Nothing is unpickled.
"""

from __future__ import annotations

from sitsearch.workers.jobs.store.board import Board
from sitsearch.workers.jobs.store.events import Events
from sitsearch.workers.jobs.store.gallery import Gallery
from sitsearch.workers.jobs.store.lessons import Lessons
from sitsearch.workers.jobs.store.queue import Queue
from sitsearch.workers.jobs.store.records import Claim, Event, Snapshot
from sitsearch.workers.jobs.store.rounds import Rounds

__all__ = ["Claim", "Event", "JobStore", "Snapshot"]


class JobStore(Queue, Rounds, Gallery, Events, Lessons, Board):
    """Jobs, their queue, round logs, images, events, what pages show and jobs teach, and what the workers publish.

    Every method raises StoreUnavailable when Redis is away.

    Args:
        redis: a client with `decode_responses` off.
        settings: prefix, TTLs, lease and queue limit.
    """
