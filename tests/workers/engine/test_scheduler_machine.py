"""The schedule and the engine under every order of events: nothing is lost, doubled or starved."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Rows, SiTGenerator
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.scheduler import Scheduler
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from tests.workers.tiny import tiny_generator

JOBS = "abcd"
BATCH = 16


class Toy:
    """A tiny generator whose field is 0: what is counted is the engine's affair alone."""

    def __init__(self, like: SiTGenerator) -> None:
        self._like = like

    def __getattr__(self, name: str) -> object:
        return getattr(self._like, name)

    def evaluate(self, x: torch.Tensor, t: torch.Tensor, rows: Rows) -> torch.Tensor:
        assert len(x) == len(t) == len(rows[0]) <= BATCH
        return torch.zeros_like(x)


TOY = Toy(tiny_generator())


class EngineMachine(RuleBasedStateMachine):
    """Submissions, steps and cancellations in any order, with room for few states at once."""

    tickets = Bundle("tickets")

    @initialize(cohorts=st.integers(1, 20))
    def begin(self, cohorts: int) -> None:
        state = 4 * 3 * 8 * 8
        self.engine = Engine(TOY, batch=BATCH, live_bytes=cohorts * 4 * state * 5)  # type: ignore[arg-type]
        self.expected: dict[int, list[tuple[int, int]]] = {}
        self.finished: set[int] = set()
        self.nfe = 0
        self.seed = 0

    @rule(
        target=tickets,
        job=st.sampled_from(JOBS),
        count=st.integers(1, 12),
        steps=st.integers(1, 4),
        guided=st.sampled_from(((0.0, 1.0), (0.3, 0.8), None)),
        priority=st.sampled_from((None, 0.5, 4.0)),
    )
    def submit(
        self, job: str, count: int, steps: int, guided: tuple[float, float] | None, priority: float | None
    ) -> int:
        self.seed += 1
        choice = SamplerChoice(
            method="euler", steps=steps, guidance=2.0 if guided else 1.0, guidance_interval=guided or (0.0, 1.0)
        )
        whole = Integrate(to=1.0, steps=steps)
        orders = [
            Order(Recipe(seed=self.seed, round=0, index=i).then(whole), Condition(1), choice) for i in range(count)
        ]
        ticket = self.engine.submit(job, orders, priority=priority)
        times = torch.linspace(0, 1, steps + 1)[:-1]
        pairs = int(((guided[0] <= times) & (times <= guided[1])).sum()) if guided else 0
        self.expected[ticket] = [(steps, steps + pairs)] * count
        return ticket

    @rule()
    def step(self) -> None:
        before = self.engine.forwards
        for done in self.engine.step():
            assert done.ticket in self.expected, "answered twice, or after its cancellation"
            assert [(s.nfe, s.forwards) for s in done.samples] == self.expected.pop(done.ticket)
            self.nfe += sum(s.nfe for s in done.samples)
            self.finished.add(done.ticket)
        assert self.engine.forwards - before <= BATCH

    @rule(ticket=consumes(tickets))
    def cancel(self, ticket: int) -> None:
        self.engine.cancel(ticket)
        self.expected.pop(ticket, None)

    @invariant()
    def memory_is_bounded_and_given_back(self) -> None:
        if hasattr(self, "engine"):
            most = self.engine._live_bytes + BATCH * 4 * 3 * 8 * 8 * 5
            assert 0 <= self.engine.live <= most
            if not self.expected:
                assert self.engine.live == 0 and not self.engine.busy

    def teardown(self) -> None:
        if not hasattr(self, "engine"):
            return
        for _ in range(10_000):
            if not self.engine.busy:
                break
            self.step()
        assert not self.expected, "submissions were lost"
        assert self.engine.live == 0
        assert self.engine.nfe >= self.nfe


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEngineMachine = EngineMachine.TestCase


@dataclass(eq=False)
class Cohort:
    ticket: int
    rows: int
    waits: bool = False


@dataclass
class Fluid:
    """A submission as even sharing would serve it, in rows."""

    ticket: int
    left: float


class FairnessMachine(RuleBasedStateMachine):
    """Nobody is served later than if the device were shared out evenly, by priorities, at every instant."""

    @initialize(priorities=st.lists(st.sampled_from((0.5, 1.0, 2.0)), min_size=4, max_size=4))
    def begin(self, priorities: list[float]) -> None:
        self.scheduler: Scheduler[Cohort] = Scheduler(BATCH)
        self.priority = dict(zip(JOBS, priorities, strict=True))
        self.queues: dict[str, deque[Fluid]] = {job: deque() for job in JOBS}
        self.real: dict[int, list[Cohort]] = {}
        self.tickets = 0

    @rule(job=st.sampled_from(JOBS), rows=st.lists(st.integers(1, 4), min_size=1, max_size=60))
    def submit(self, job: str, rows: list[int]) -> None:
        """Cohorts of one evaluation each, so that a submission can use whole forwards, as a fluid would."""
        self.tickets += 1
        cohorts = [Cohort(self.tickets, count) for count in rows]
        self.scheduler.submit(job, cohorts, work=sum(rows), priority=self.priority[job])
        self.queues[job].append(Fluid(self.tickets, sum(rows)))
        self.real[self.tickets] = cohorts

    @rule(forwards=st.integers(1, 10))
    def run(self, forwards: int) -> None:
        for _ in range(forwards):
            waiting = sum(cohort.rows for cohort in self.scheduler)
            picked = self.scheduler.pick()
            served = sum(cohort.rows for cohort in picked)
            assert min(waiting, BATCH - 3) <= served <= BATCH, "a forward is full but for less than a cohort"
            for cohort in picked:
                self.scheduler.remove(cohort)
                self.real[cohort.ticket].remove(cohort)
            for ticket in self._flow(served):
                # What a forward's end cut off, and what filled its gaps, may come a forward later.
                assert sum(cohort.rows for cohort in self.real[ticket]) <= BATCH, "later than under even shares"

    def _flow(self, rows: float) -> list[int]:
        """Share so many rows out evenly; the submissions that this ended."""
        ended = []
        while rows > 1e-9 and any(self.queues.values()):
            active = {job: queue for job, queue in self.queues.items() if queue}
            weights = sum(self.priority[job] for job in active)
            part = min(rows, *(queue[0].left * weights / self.priority[job] for job, queue in active.items()))
            rows -= part
            for job, queue in active.items():
                queue[0].left -= part * self.priority[job] / weights
                if queue[0].left < 1e-9:
                    ended.append(queue.popleft().ticket)
        return ended


FairnessMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestFairnessMachine = FairnessMachine.TestCase
