"""What can go wrong between a job and its store.

SitsearchError
'- StoreError
   |- StoreUnavailable      Redis is away or cannot take writes now; trying again later may help
   |  '- StoreFull          its memory or its disk is full: nothing new can be taken until there is room
   |- StoreForgets          it would drop keys once its memory is full: not to be used
   |- UnreadableRecord      what the store holds of a job cannot be understood
   |- UnknownJob            no such job, or its record has expired
   |- BadCursor             a page cursor that no listing gave out
   |- QueueFull             as many jobs wait as the settings allow
   |- IdempotencyConflict   the idempotency key was used with another body
   |- RoundOutOfOrder       a round that is not the next one of the log
   |- LeaseLost             another coordinator holds the job, or it has ended
   |- JobChanged            the job moved on while it was being changed
   '- JobCanceled           the job was canceled under its coordinator
"""

from __future__ import annotations

from sitsearch.workers.errors import SitsearchError


class StoreError(SitsearchError):
    """Base of the store's errors."""


class StoreUnavailable(StoreError):
    """Redis is away or cannot take writes now."""


class StoreFull(StoreUnavailable):
    """Redis has no room: its memory or its disk is full.

    Attributes:
        what: `memory` or `disk`.
    """

    def __init__(self, what: str, error: object) -> None:
        self.what = what
        super().__init__(f"Redis is out of {what}: {error}")


class StoreForgets(StoreError):
    """The server is set up to drop keys when its memory is full, and would lose jobs."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"Redis would lose jobs once its memory is full: set `maxmemory-policy noeviction`, not {policy}"
        )


class UnreadableRecord(StoreError):
    """What the store holds of a job cannot be understood: it was spoilt, or written by a newer version."""


class _AboutJob(StoreError):
    """An error about one job.

    Attributes:
        job_id: the job.
    """

    message = "{job_id}"

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(self.message.format(job_id=job_id))


class UnknownJob(_AboutJob):
    """No such job, or its record has expired."""

    message = "no job {job_id!r}; it was never submitted here or its record has expired"


class LeaseLost(_AboutJob):
    """The claim's fencing token is no longer the newest, or the job has ended; nothing was written."""

    message = "the lease on job {job_id!r} is lost"


class JobCanceled(_AboutJob):
    """The job was canceled; nothing was written."""

    message = "job {job_id!r} was canceled"


class JobChanged(_AboutJob):
    """The job is not in the state any more that a change of it was meant for; nothing was written."""

    message = "job {job_id!r} has changed meanwhile; look at it and decide again"


class IdempotencyConflict(_AboutJob):
    """The idempotency key belongs to `job_id`, which was submitted with another body."""

    message = "the idempotency key was used with another body, for job {job_id!r}"


class BadCursor(StoreError):
    """A page cursor that no listing gave out."""

    def __init__(self, cursor: str) -> None:
        super().__init__(f"{cursor[:80]!r} is not a cursor of this listing")


class QueueFull(StoreError):
    """As many jobs wait, or for as many NFE together, as the settings allow.

    Attributes:
        seconds: after which there may be room, by the rate at which jobs have ended lately.
    """

    def __init__(self, reason: str, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(reason)


class RoundOutOfOrder(StoreError):
    """A round that is not the next one of the log.

    Attributes:
        given: the refused round's index.
        due: the index that the log expects, its length.
    """

    def __init__(self, job_id: str, given: int, due: int) -> None:
        self.given, self.due = given, due
        super().__init__(f"job {job_id!r}: round {given} given where round {due} is due")
