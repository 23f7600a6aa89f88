"""Which cohorts share the next forward: the engine's schedule, without a model and without torch.

A cohort is a few trajectories of one job that move in lockstep. Jobs share the device by deficit round robin (Shreedhar
and Varghese 1995): on its turn a job may spend a quantum of network rows, times its priority, and what it could not
spend it keeps for its next turn. The turn moves on from forward to forward, so a job of a thousand cohorts delays a job
of one by at most one turn. Within a job the oldest cohort goes first, so that what is begun gets finished.

The cost of a forward's schedule depends on the rows of a forward, not on the number of jobs or cohorts that wait.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, Protocol, TypeVar

#: A job's turn is this fraction of a forward, so that several jobs fit in one.
TURNS_PER_FORWARD = 4
#: Jobs whose next cohort does not fit in the room that is left, before the search for one that does is given up.
MISFITS = 8
PRIORITIES = (0.1, 10.0)


class Cohort(Protocol):
    """What the scheduler must know of a cohort."""

    job: str

    @property
    def rows(self) -> int:
        """Network rows that its next evaluation takes, at most."""


C = TypeVar("C", bound=Cohort)


@dataclass(eq=False)
class _Flow(Generic[C]):
    """A job's cohorts, oldest first, and what it may still spend on its turn.

    Attributes:
        begun: how many of the cohorts have begun.
        paid: its turn has begun, and goes on in the next forward.
    """

    job: str
    priority: float = 1.0
    cohorts: OrderedDict[int, C] = field(default_factory=OrderedDict)
    begun: int = 0
    deficit: float = 0.0
    paid: bool = False


class Scheduler(Generic[C]):
    """Deficit round robin over jobs, first come first served within one.

    Args:
        batch: rows of one forward.
    """

    def __init__(self, batch: int) -> None:
        self.batch, self.quantum = batch, max(1, batch // TURNS_PER_FORWARD)
        # In the order of their turns: all jobs, and those with a cohort that has begun.
        self._flows: OrderedDict[str, _Flow[C]] = OrderedDict()
        self._begun_flows: OrderedDict[str, _Flow[C]] = OrderedDict()
        self._begun: set[int] = set()
        self._cohorts = 0

    def __len__(self) -> int:
        return self._cohorts

    def __contains__(self, cohort: C) -> bool:
        flow = self._flows.get(cohort.job)
        return flow is not None and id(cohort) in flow.cohorts

    def __iter__(self) -> Iterator[C]:
        return (cohort for flow in self._flows.values() for cohort in flow.cohorts.values())

    def add(self, cohort: C, *, priority: float | None = None, begun: bool = False) -> None:
        """Queue a cohort behind its job's others.

        Args:
            cohort: what is to be picked, forward by forward, until it is removed.
            priority: the job's share of the device in relation to other jobs', in `PRIORITIES`; None leaves it as it
                is, at first 1.
            begun: `admit` need not be asked.

        Raises:
            ValueError: it needs more rows than a forward has, or the priority is out of range.
        """
        if cohort.rows > self.batch:
            raise ValueError(f"a cohort of {cohort.rows} rows does not fit in a forward of {self.batch}")
        if priority is not None and not PRIORITIES[0] <= priority <= PRIORITIES[1]:
            raise ValueError(f"priority must be in [{PRIORITIES[0]}, {PRIORITIES[1]}], not {priority}")
        flow = self._flows.setdefault(cohort.job, _Flow(cohort.job))
        flow.priority = flow.priority if priority is None else priority
        flow.cohorts[id(cohort)] = cohort
        self._cohorts += 1
        if begun:
            self._begin(flow, cohort)
            self._begun_flows.setdefault(flow.job, flow)

    def remove(self, cohort: C) -> None:
        """Take a finished or cancelled cohort out."""
        flow = self._flows[cohort.job]
        del flow.cohorts[id(cohort)]
        self._cohorts -= 1
        if id(cohort) in self._begun:
            self._begun.remove(id(cohort))
            flow.begun -= 1
            if not flow.begun:
                del self._begun_flows[flow.job]
        if not flow.cohorts:
            del self._flows[flow.job]

    def pick(self, admit: Callable[[C], bool] = lambda cohort: True) -> list[C]:
        """The cohorts of the next forward, `batch` rows at most.

        Args:
            admit: asked of a cohort before it is picked for the first time: whether it may begin. After the first no,
                this forward takes only cohorts that have begun; whoever may not begin keeps its turn.

        Returns:
            Empty only when nothing is queued, or nothing has begun and nothing may.
        """
        room, closed, misfits = self.batch, False, 0
        picked: list[C] = []
        waiting: dict[str, Iterator[C]] = {}  # of jobs whose turn has come: their cohorts that are not picked yet
        held: list[_Flow[C]] = []  # keep their turn for the next forward
        served: list[_Flow[C]] = []  # have no more for this one
        while room and misfits < MISFITS and (ring := self._begun_flows if closed else self._flows):
            flow = next(iter(ring.values()))
            self._lift(flow)
            borrows = misfits > 0  # out of turn, while one whose turn it is waits for more room than is left
            if not flow.paid and not borrows:
                flow.deficit += self.quantum * flow.priority
                flow.paid = True
            cohorts = waiting.get(flow.job) or iter(flow.cohorts.values())
            for cohort in cohorts:
                fresh = id(cohort) not in self._begun
                if cohort.rows > flow.deficit and not borrows:
                    waiting[flow.job] = chain((cohort,), cohorts)
                    flow.paid = False
                    self._lay(flow)
                    break
                no_room = cohort.rows > room or flow.deficit < -self.quantum
                if no_room or (fresh and (closed or not admit(cohort))):
                    closed |= not no_room
                    misfits += no_room or borrows
                    held.append(flow)
                    break
                if fresh:
                    self._begin(flow, cohort)
                picked.append(cohort)
                room -= cohort.rows
                flow.deficit -= cohort.rows
            else:
                misfits += borrows
                (held if borrows else served).append(flow)
                if not borrows:  # it asked for no more than it got
                    flow.deficit, flow.paid = min(0.0, flow.deficit), False
        for flow in reversed(held):
            self._lay(flow, last=False)
        for flow in served:
            self._lay(flow)
        return picked

    def _begin(self, flow: _Flow[C], cohort: C) -> None:
        self._begun.add(id(cohort))
        flow.begun += 1

    def _lift(self, flow: _Flow[C]) -> None:
        """Take a job out of the ring while it has its turn."""
        del self._flows[flow.job]
        self._begun_flows.pop(flow.job, None)

    def _lay(self, flow: _Flow[C], *, last: bool = True) -> None:
        """Put a job back into the ring, as the last or the first."""
        for ring in (self._flows, self._begun_flows) if flow.begun else (self._flows,):
            ring[flow.job] = flow
            ring.move_to_end(flow.job, last=last)
