"""The store's scripts against a model of what they promise: any calls, in any order, by any number of coordinators."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from sitsearch.workers.jobs.errors import JobCanceled, JobChanged, LeaseLost, RoundOutOfOrder
from sitsearch.workers.jobs.job import Extension, Status, Usage
from sitsearch.workers.jobs.logged import logged
from sitsearch.workers.jobs.store import Claim, JobStore
from tests.simulation.clock import VirtualLoop, virtual_time
from tests.simulation.network import Process, Server, World
from tests.simulation.service import SETTINGS, store_of
from tests.simulation.valkey import valkey
from tests.workers.jobs.store.makers import make_job, make_progress, make_result, make_round

#: How many courses of 50 calls.
COURSES = int(os.environ.get("COURSES", "60"))
COORDINATORS = ("a", "b", "c")


@dataclass
class Known:
    """What the model knows of a job.

    Attributes:
        status, rounds, extensions: as they must be.
        holder: the claim that may write, and when its lease ends; None if nobody may.
        released: the claim that was given back last.
        claims: all that ever were given.
    """

    status: Status = Status.QUEUED
    rounds: int = 0
    extensions: int = 0
    holder: Claim | None = None
    until: float = 0.0
    released: Claim | None = None
    claims: list[Claim] = field(default_factory=list)


class Machine(RuleBasedStateMachine):
    """Jobs under any calls; the clock is virtual, and calls take no time."""

    def __init__(self) -> None:
        super().__init__()
        self._time = virtual_time()
        self.loop: VirtualLoop = self._time.__enter__()
        self._valkey = SERVER
        self.jobs: dict[str, Known] = {}
        self.waiting: list[str] = []

    @initialize()
    def begin(self) -> None:
        process = Process("client", World(self.loop, 0), Server(self._valkey, World(self.loop, 0)))
        process.leg = _at_once  # type: ignore[method-assign]
        self.store: JobStore = store_of(process)

    def teardown(self) -> None:
        self._time.__exit__(None, None, None)

    def do(self, call: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(call)

    def pick(self, place: int) -> tuple[str, Known]:
        return [*self.jobs.items()][place % len(self.jobs)]

    @rule()
    def submit(self) -> None:
        job = make_job(created_at=float(len(self.jobs)))
        self.do(self.store.submit(job))
        self.jobs[job.id] = Known()
        self.waiting.append(job.id)

    @rule(consumer=st.sampled_from(COORDINATORS), held=st.booleans())
    def claim(self, consumer: str, held: bool) -> None:
        now = self.loop.now
        mine = (
            [job for job, known in self.jobs.items() if known.holder and known.status is Status.RUNNING] if held else []
        )
        claim = self.do(self.store.claim(consumer, block=0, held=mine))
        free = {j for j, k in self.jobs.items() if k.status is Status.RUNNING and k.until <= now and j not in mine}
        if claim is None:
            assert not free and not self.waiting
            return
        known = self.jobs[claim.job.id]
        assert claim.job.id in free if free else claim.job.id == self.waiting[0]  # those come first, then in order
        assert claim.token not in {one.token for one in known.claims}
        assert claim.taken_over == (known.status is Status.RUNNING and known.until > 0)
        if known.status is Status.QUEUED:
            self.waiting.remove(claim.job.id)
        known.status, known.holder, known.until = Status.RUNNING, claim, now + SETTINGS.lease
        known.claims.append(claim)

    @precondition(lambda self: any(known.claims for known in self.jobs.values()))
    @rule(place=st.integers(0, 99), which=st.integers(0, 99), ahead=st.sampled_from([0, 0, 0, 1, -1]))
    def append(self, place: int, which: int, ahead: int) -> None:
        _, known, claim = self.claimed(place, which)
        index = known.rounds + ahead
        if index < 0:
            return
        call = self.store.append_round(
            claim, logged(make_round(index)), progress=make_progress(index + 1), usage=Usage(), images={}, keep=()
        )
        again = ahead == -1  # the last round once more, as after a lost answer
        if not self.written(known, claim, call, RoundOutOfOrder if ahead == 1 else None):
            return
        known.until = self.loop.now + SETTINGS.lease if not again else known.until
        known.rounds += 0 if again else 1

    @precondition(lambda self: any(known.claims for known in self.jobs.values()))
    @rule(place=st.integers(0, 99), which=st.integers(0, 99), status=st.sampled_from([Status.SUCCEEDED, Status.FAILED]))
    def finish(self, place: int, which: int, status: Any) -> None:
        _, known, claim = self.claimed(place, which)
        result = make_result("0-0") if status is Status.SUCCEEDED else None
        call = self.store.finish(claim, status=status, result=result, usage=Usage())
        if known.status is status and known.holder is claim:
            self.do(call)  # said twice
        elif self.written(known, claim, call):
            known.status, known.until = status, 0.0

    @precondition(lambda self: any(known.claims for known in self.jobs.values()))
    @rule(place=st.integers(0, 99), which=st.integers(0, 99))
    def renew(self, place: int, which: int) -> None:
        _, known, claim = self.claimed(place, which)
        (refusal,) = self.do(self.store.renew([claim]))
        assert (refusal is None) == (known.status is Status.RUNNING and known.holder is claim)
        if refusal is None:
            known.until = self.loop.now + SETTINGS.lease

    @precondition(lambda self: any(known.claims for known in self.jobs.values()))
    @rule(place=st.integers(0, 99), which=st.integers(0, 99))
    def release(self, place: int, which: int) -> None:
        _, known, claim = self.claimed(place, which)
        if known.released is claim and known.status is Status.RUNNING and known.holder is None:
            self.do(self.store.release(claim))  # said twice
        elif self.written(known, claim, self.store.release(claim)):
            known.holder, known.until, known.released = None, 0.0, claim

    @precondition(lambda self: self.jobs)
    @rule(place=st.integers(0, 99))
    def cancel(self, place: int) -> None:
        job, known = self.pick(place)
        after = self.do(self.store.cancel(job))
        if known.status in (Status.QUEUED, Status.RUNNING):
            if job in self.waiting:
                self.waiting.remove(job)
            known.status, known.until = Status.CANCELED, 0.0
        assert after.status is known.status

    @precondition(lambda self: self.jobs)
    @rule(place=st.integers(0, 99))
    def extend(self, place: int) -> None:
        job, known = self.pick(place)
        record = self.do(self.store.get(job))
        more = Extension(after_round=known.rounds, nfe=10)
        self.again(job, known, self.store.extend(record, more), known.status is Status.SUCCEEDED)
        known.extensions += known.status is Status.QUEUED and self.waiting[-1:] == [job]

    @precondition(lambda self: self.jobs)
    @rule(place=st.integers(0, 99))
    def resume(self, place: int) -> None:
        job, known = self.pick(place)
        record = self.do(self.store.get(job))
        if known.status in (Status.QUEUED, Status.RUNNING):
            self.do(self.store.resume(record))  # changes nothing
            return
        self.again(job, known, self.store.resume(record), known.status in (Status.FAILED, Status.CANCELED))

    @rule(seconds=st.sampled_from([0.5, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.loop.now += seconds

    @invariant()
    def the_store_says_what_the_model_knows(self) -> None:
        if not self.jobs:
            return
        for job, known in self.jobs.items():
            record = self.do(self.store.get(job))
            assert record.status is known.status
            assert self._valkey.llen(self.store.keys.rounds(job)) == known.rounds
        keys = self.store.keys
        assert [job.decode() for job in self._valkey.zrange(keys.waiting, 0, -1)] == self.waiting
        running = {job for job, known in self.jobs.items() if known.status is Status.RUNNING}
        assert {job.decode() for job in self._valkey.zrange(keys.leases, 0, -1)} == running
        owed = {name.decode(): int(nfe) for name, nfe in self._valkey.hgetall(keys.owed).items()}  # type: ignore[union-attr]
        assert owed.pop("", 0) == sum(owed.values()) and owed.keys() == {*self.waiting}

    def claimed(self, place: int, which: int) -> tuple[str, Known, Claim]:
        jobs = [(job, known) for job, known in self.jobs.items() if known.claims]
        job, known = jobs[place % len(jobs)]
        return job, known, known.claims[-1 - which % min(3, len(known.claims))]

    def written(self, known: Known, claim: Claim, call: Coroutine[Any, Any, Any], wrong: type | None = None) -> bool:
        """Whether a claim's write went through, as it must exactly if the claim holds."""
        try:
            self.do(call)
        except LeaseLost:
            assert (
                known.status is not Status.RUNNING and known.status is not Status.CANCELED
            ) or known.holder is not claim
            return False
        except JobCanceled:
            assert known.status is Status.CANCELED
            return False
        except RoundOutOfOrder:
            assert wrong is RoundOutOfOrder
            return False
        assert known.status is Status.RUNNING and known.holder is claim and wrong is None
        return True

    def again(self, job: str, known: Known, call: Coroutine[Any, Any, Any], may: bool) -> None:
        """A job that has ended waits once more, if it may."""
        try:
            self.do(call)
        except JobChanged:
            assert not may
            return
        assert may
        known.status, known.holder, known.until = Status.QUEUED, None, 0.0
        self.waiting.append(job)


async def _at_once() -> None:
    await asyncio.sleep(0)


SERVER: Any = None


def test_no_course_of_calls_leads_the_store_astray() -> None:
    global SERVER
    with valkey() as SERVER:
        Machine.TestCase.settings = settings(
            max_examples=COURSES,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=[*HealthCheck],
            phases=[Phase.reuse, Phase.generate],  # to shrink a course takes minutes
        )
        Machine.TestCase().runTest()  # type: ignore[attr-defined]
