"""Which cohorts share the next forward: the engine's schedule, without a model and without torch.

A cohort is a few trajectories of one job that move in lockstep; a submission is what a job asks for at once, and is
answered when the last of its cohorts has ended. Jobs are entitled to equal shares of the network's rows, or to shares
in proportion to their priorities. But nobody gains from half an answer: so the schedule reckons when each submission
would end if the rows were shared out evenly (Demers, Keshav and Shenker 1989: virtual time), and the device works on
that which would end first. This is the fair sojourn protocol (Friedman and Henderson 2003). On one server that any
submission can fill, none ends later than under even shares, and most end sooner. Here that holds as far as what is
served first fills the forwards: a trajectory takes one row of each forward, so that a submission of few trajectories
takes its steps however it is served, and what it leaves free goes to those after it. A huge job cannot starve a small
one.

The cost of a forward's schedule depends on the rows of a forward, not on the number of jobs or cohorts that wait.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import chain
from typing import Generic, Protocol, TypeVar

from sitsearch.workers.jobs.base import PRIORITIES

#: Cohorts that do not fit in the room that is left, before the search for one that does is given up.
MISFITS = 8


class Cohort(Protocol):
    """What the scheduler must know of a cohort."""

    @property
    def ticket(self) -> Hashable:
        """The submission that it is part of."""

    @property
    def rows(self) -> int:
        """Network rows that its next evaluation takes, at most."""

    @property
    def waits(self) -> bool:
        """It needs something else before its next evaluation, and is passed over."""


C = TypeVar("C", bound=Cohort)


@dataclass
class _Share:
    """A job as even sharing would have it: until `end`, in virtual time, it takes part in proportion to `weight`."""

    weight: float
    end: float


@dataclass(eq=False)
class _Claim(Generic[C]):
    """A submission: its cohorts, oldest first, and when it would end under even shares.

    Attributes:
        left: network rows that it is expected to take yet.
    """

    ticket: Hashable
    job: str
    end: float
    number: int
    left: float
    begun: dict[C, None] = field(default_factory=dict)
    fresh: dict[C, None] = field(default_factory=dict)

    @property
    def order(self) -> tuple[float, int]:
        """What comes first is served first."""
        return self.end, self.number

    def __iter__(self) -> Iterator[C]:
        return chain(self.begun, self.fresh)


class EvenShares:
    """When jobs' requests would end if the device were shared out evenly, with priorities as weights.

    Virtual time is the rows that a job of weight 1 would have got so far. It advances the faster, the fewer jobs there
    are to share with. A job's requests are served one after another.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._shares: dict[str, _Share] = {}
        self._weights = 0.0
        self._ends: list[tuple[float, str]] = []  # a heap; what no longer agrees with a share's end is stale

    def charge(self, job: str, rows: float, weight: float | None = None) -> float:
        """The virtual time at which `rows` more of a job would be done.

        Args:
            weight: from now on; None leaves it as it is, at first 1.
        """
        share = self._shares.get(job)
        if share is None:
            share = self._shares[job] = _Share(1.0, self.now)
            self._weights += 1.0
        if weight is not None:
            self._weights += weight - share.weight
            share.weight = weight
        share.end = max(self.now, share.end) + rows / share.weight
        heappush(self._ends, (share.end, job))
        return share.end

    def give_back(self, job: str, rows: float) -> None:
        """A job was charged so many rows that it did not take; less than 0 if it took more."""
        if (share := self._shares.get(job)) is not None:
            share.end = max(self.now, share.end - rows / share.weight)
            heappush(self._ends, (share.end, job))

    def advance(self, rows: float) -> None:
        """The device has worked through so many rows."""
        while self._ends:
            end, job = self._ends[0]
            share = self._shares.get(job)
            if share is not None and share.end == end:
                if (end - self.now) * self._weights > rows:
                    self.now += rows / self._weights
                    return
                rows -= (end - self.now) * self._weights
                self.now = end
                self._weights -= share.weight
                del self._shares[job]
            heappop(self._ends)


class Scheduler(Generic[C]):
    """What would end first under even shares goes first; see the module.

    Args:
        batch: rows of one forward.
    """

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self._claims: dict[Hashable, _Claim[C]] = {}
        # In the order of service: all claims, and those with a cohort that has begun.
        self._order: list[_Claim[C]] = []
        self._begun: list[_Claim[C]] = []
        self._shares = EvenShares()
        self._numbers = 0
        self._cohorts = 0

    def __len__(self) -> int:
        return self._cohorts

    def __contains__(self, cohort: C) -> bool:
        claim = self._claims.get(cohort.ticket)
        return claim is not None and (cohort in claim.begun or cohort in claim.fresh)

    def __iter__(self) -> Iterator[C]:
        return chain.from_iterable(self._order)

    def submit(self, job: str, cohorts: Sequence[C], *, work: float, priority: float | None = None) -> None:
        """Queue the cohorts of one ticket, which are picked, forward by forward, until they are removed.

        Args:
            job: whose they are.
            cohorts: at least one; all of one ticket that no other cohort has.
            work: network rows that they are expected to take until they end.
            priority: the job's share of the device in relation to other jobs', in `PRIORITIES`; None leaves it as it
                is, at first 1.

        Raises:
            ValueError: a cohort needs more rows than a forward has, or the priority is out of range.
        """
        for cohort in cohorts:
            if cohort.rows > self.batch:
                raise ValueError(f"a cohort of {cohort.rows} rows does not fit in a forward of {self.batch}")
        if priority is not None and not PRIORITIES[0] <= priority <= PRIORITIES[1]:
            raise ValueError(f"priority must be in [{PRIORITIES[0]}, {PRIORITIES[1]}], not {priority}")
        end = self._shares.charge(job, work, priority)
        claim = _Claim(cohorts[0].ticket, job, end, self._numbers, work, fresh=dict.fromkeys(cohorts))
        self._numbers += 1
        self._cohorts += len(claim.fresh)
        self._claims[claim.ticket] = claim
        insort(self._order, claim, key=_order)

    def join(self, cohort: C) -> None:
        """Queue one more cohort of a ticket that is queued; it has begun, `admit` is not asked."""
        self._cohorts += 1
        self._begin(self._claims[cohort.ticket], cohort)

    def remove(self, cohort: C) -> None:
        """Take a finished or cancelled cohort out."""
        claim = self._claims[cohort.ticket]
        self._cohorts -= 1
        if cohort in claim.fresh:
            del claim.fresh[cohort]
        else:
            del claim.begun[cohort]
            if not claim.begun:
                _drop(self._begun, claim)
        if not claim.begun and not claim.fresh:
            del self._claims[claim.ticket]
            _drop(self._order, claim)
            self._shares.give_back(claim.job, claim.left)
            if not self._order:
                self._shares = EvenShares()

    def pick(self, admit: Callable[[C], bool] = lambda cohort: True) -> list[C]:
        """The cohorts of the next forward, `batch` rows at most.

        Args:
            admit: asked of a cohort before it is picked for the first time: whether it may begin. After the first no,
                this forward takes only cohorts that have begun.

        Returns:
            Empty only when all that is queued waits, or nothing has begun and nothing may.
        """
        picked: dict[C, _Claim[C]] = {}
        room, misfits = self.batch, 0
        queue = ((claim, cohort) for claim in self._order for cohort in claim)
        while room and misfits < MISFITS and (found := next(queue, None)):
            claim, cohort = found
            if cohort in picked or cohort.waits:
                continue
            if cohort.rows > room:
                misfits += 1
            elif cohort in claim.fresh and not admit(cohort):
                queue = ((claim, cohort) for claim in self._begun for cohort in claim.begun)
            else:
                picked[cohort] = claim
                room -= cohort.rows
        for cohort, claim in picked.items():
            claim.left -= cohort.rows
            if cohort in claim.fresh:
                del claim.fresh[cohort]
                self._begin(claim, cohort)
        self._shares.advance(self.batch - room)
        return list(picked)

    def _begin(self, claim: _Claim[C], cohort: C) -> None:
        if not claim.begun:
            insort(self._begun, claim, key=_order)
        claim.begun[cohort] = None


def _order(claim: _Claim[C]) -> tuple[float, int]:
    return claim.order


def _drop(claims: list[_Claim[C]], claim: _Claim[C]) -> None:
    del claims[bisect_left(claims, claim.order, key=_order)]
