"""Which cohorts share the next forward: the engine's schedule, without a model and without torch.

A cohort is a few trajectories of one job that move in lockstep. Jobs take turns, one cohort each, until no cohort fits
in the room that is left; the turn moves on with every forward, so that a job of a thousand cohorts delays a job of one
by at most one turn. Within a job the oldest cohort goes first, so that what is begun gets finished.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar


class Cohort(Protocol):
    """What the scheduler must know of a cohort."""

    job: str

    @property
    def rows(self) -> int:
        """Network rows that its next evaluation takes."""


C = TypeVar("C", bound=Cohort)


class Scheduler(Generic[C]):
    """Round robin over jobs, first come first served within one.

    Args:
        batch: rows of one forward.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._jobs: OrderedDict[str, deque[C]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[C]:
        return (cohort for queue in self._jobs.values() for cohort in queue)

    def add(self, cohort: C) -> None:
        """Queue a cohort behind its job's others.

        Raises:
            ValueError: it needs more rows than a forward has.
        """
        if cohort.rows > self.batch:
            raise ValueError(f"a cohort of {cohort.rows} rows does not fit in a forward of {self.batch}")
        self._jobs.setdefault(cohort.job, deque()).append(cohort)

    def remove(self, cohort: C) -> None:
        """Take a finished or cancelled cohort out."""
        queue = self._jobs[cohort.job]
        queue.remove(cohort)
        if not queue:
            del self._jobs[cohort.job]

    def pick(self) -> list[C]:
        """The cohorts of the next forward, `batch` rows at most; empty only when nothing is queued."""
        room, picked = self.batch, []
        waiting = [iter(queue) for queue in self._jobs.values()]
        while waiting:
            going_on = []
            for cohorts in waiting:
                cohort = next(cohorts, None)
                if cohort is None or cohort.rows > room:
                    continue  # this job has no more for this forward; the others may still fit
                picked.append(cohort)
                room -= cohort.rows
                going_on.append(cohorts)
            waiting = going_on
        if self._jobs:
            self._jobs.move_to_end(next(iter(self._jobs)))
        return picked
