"""The schedule, without a model."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sitsearch.workers.engine.scheduler import EvenShares, Scheduler

TICKETS = count()


@dataclass(eq=False)
class Cohort:
    ticket: int
    rows: int
    left: int = 1
    waits: bool = False


def submit(
    scheduler: Scheduler[Cohort], job: str, *cohorts: tuple[int, int], priority: float | None = None
) -> list[Cohort]:
    """Queue cohorts of so many rows and evaluations as one submission."""
    ticket = next(TICKETS)
    made = [Cohort(ticket, rows, left) for rows, left in cohorts]
    scheduler.submit(job, made, work=sum(rows * left for rows, left in cohorts), priority=priority)
    return made


def step(scheduler: Scheduler[Cohort]) -> list[Cohort]:
    """One forward."""
    picked = scheduler.pick()
    assert sum(c.rows for c in picked) <= scheduler.batch
    assert len(set(map(id, picked))) == len(picked)
    for cohort in picked:
        cohort.left -= 1
        if cohort.left == 0:
            scheduler.remove(cohort)
    return picked


def run(scheduler: Scheduler[Cohort]) -> list[list[Cohort]]:
    """Every forward until nothing is left."""
    forwards = []
    while picked := step(scheduler):
        forwards.append(picked)
    assert len(scheduler) == 0
    return forwards


COHORTS = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 5)), min_size=1, max_size=6)


@given(st.lists(st.tuples(st.sampled_from("abcd"), COHORTS), max_size=10))
def test_every_cohort_gets_exactly_its_evaluations(plan: list[tuple[str, list[tuple[int, int]]]]) -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    cohorts = [(cohort, cohort.left) for job, parts in plan for cohort in submit(scheduler, job, *parts)]
    turns = [cohort for picked in run(scheduler) for cohort in picked]
    assert sorted(map(id, turns)) == sorted(id(c) for c, left in cohorts for _ in range(left))


def test_a_small_job_goes_before_a_huge_one() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    submit(scheduler, "huge", *[(8, 10)] * 1000)
    step(scheduler)
    (small,) = submit(scheduler, "small", (8, 3))
    assert [small in step(scheduler) for _ in range(4)] == [True, True, True, False]


def test_a_job_with_submissions_without_end_does_not_starve_another() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    (patient,) = submit(scheduler, "patient", (8, 100))
    forwards = 0
    while patient.left:
        submit(scheduler, "eager", (8, 1), (8, 1))
        step(scheduler)
        forwards += 1
    assert 198 <= forwards <= 202, "two jobs have half of the device each"


def test_submissions_of_equal_jobs_are_answered_one_after_another() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    first = submit(scheduler, "a", *[(2, 5)] * 4)
    second = submit(scheduler, "b", *[(2, 5)] * 4)
    forwards = run(scheduler)
    assert [set(map(id, picked)) for picked in forwards] == [set(map(id, first))] * 5 + [set(map(id, second))] * 5


def test_of_one_job_the_oldest_submission_goes_first() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(2)
    (first,) = submit(scheduler, "a", (2, 2))
    (second,) = submit(scheduler, "a", (2, 1))
    assert [c for picked in run(scheduler) for c in picked] == [first, first, second]


def test_priorities_are_shares() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(2)
    (slow,) = submit(scheduler, "slow", (2, 10))
    (fast,) = submit(scheduler, "fast", (2, 30), priority=4.0)
    forwards = [picked[0] for picked in run(scheduler)]
    assert forwards == [fast] * 30 + [slow] * 10
    with pytest.raises(ValueError, match=r"priority must be in \[0.1, 10.0\], not 11.0"):
        submit(scheduler, "a", (2, 1), priority=11.0)


def test_what_is_dropped_is_not_charged() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(2)
    (other,) = submit(scheduler, "b", (2, 100))
    (dropped,) = submit(scheduler, "a", (2, 1000))
    scheduler.remove(dropped)
    (mine,) = submit(scheduler, "a", (2, 50))
    assert [picked[0] for picked in run(scheduler)] == [mine] * 50 + [other] * 100


def test_a_cohort_larger_than_a_forward_is_refused() -> None:
    with pytest.raises(ValueError, match="9 rows does not fit in a forward of 8"):
        submit(Scheduler(8), "a", (9, 1))


def test_the_schedule_of_a_forward_looks_at_few_of_many_jobs() -> None:
    looked = 0

    class Counted(Cohort):
        @property
        def rows(self) -> int:
            nonlocal looked
            looked += 1
            return 2

        @rows.setter
        def rows(self, value: int) -> None:
            pass

    def cost(jobs: int) -> int:
        nonlocal looked
        scheduler: Scheduler[Cohort] = Scheduler(32)
        for job in range(jobs):
            ticket = next(TICKETS)
            scheduler.submit(str(job), [Counted(ticket, 2) for _ in range(3)], work=6)
        looked = 0
        for _ in range(10):
            assert len(scheduler.pick()) == 16
        return looked

    assert cost(1000) <= cost(100)


def test_room_that_is_too_small_for_one_goes_to_another() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    wide = submit(scheduler, "wide", (5, 3), (5, 3))
    (narrow,) = submit(scheduler, "narrow", (3, 9))
    assert {id(c) for c in step(scheduler)} == {id(wide[0]), id(narrow)}


def test_what_may_not_begin_waits_and_what_has_begun_goes_on() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    (begun,) = submit(scheduler, "a", (2, 9))
    assert scheduler.pick() == [begun]
    (later,) = submit(scheduler, "b", (2, 1))
    assert scheduler.pick(lambda cohort: False) == [begun]
    assert scheduler.pick(lambda cohort: False) == [begun]
    assert set(map(id, scheduler.pick())) == {id(begun), id(later)}


def test_a_cohort_that_parts_goes_on_with_its_submission() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(2)
    (first,) = submit(scheduler, "a", (2, 2))
    (other,) = submit(scheduler, "b", (2, 1), priority=0.1)
    scheduler.pick()
    parted = Cohort(first.ticket, 2)
    scheduler.join(parted)
    assert parted in scheduler and len(scheduler) == 3
    assert [c for picked in run(scheduler) for c in picked] == [first, first, parted, other]


def test_even_shares_are_those_of_a_fluid() -> None:
    shares = EvenShares()
    assert shares.charge("a", 10) == 10
    assert shares.charge("b", 10, 2.0) == 5
    shares.advance(15)  # b ends at virtual time 5, when a has 5 left
    assert shares.now == 5
    shares.advance(3)
    assert shares.now == 8
    assert shares.charge("b", 10) == 18
    shares.give_back("b", 4)
    assert shares.charge("b", 1) == 15
