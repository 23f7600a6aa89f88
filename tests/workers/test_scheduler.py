"""The schedule, without a model."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.scheduler import Scheduler


@dataclass(eq=False)
class Cohort:
    job: str
    rows: int
    left: int = 1


def run(scheduler: Scheduler[Cohort]) -> list[list[Cohort]]:
    """Every forward until nothing is left."""
    forwards = []
    while picked := scheduler.pick():
        assert sum(c.rows for c in picked) <= scheduler.batch
        assert len(set(map(id, picked))) == len(picked)
        for cohort in picked:
            cohort.left -= 1
            if cohort.left == 0:
                scheduler.remove(cohort)
        forwards.append(picked)
    assert len(scheduler) == 0
    return forwards


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 8), st.integers(1, 5)), max_size=30))
def test_every_cohort_gets_exactly_its_evaluations(plan: list[tuple[str, int, int]]) -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    cohorts = [Cohort(*spec) for spec in plan]
    for cohort in cohorts:
        scheduler.add(cohort)
    turns = [cohort for picked in run(scheduler) for cohort in picked]
    assert sorted(map(id, turns)) == sorted(
        id(c) for c, (_, _, left) in zip(cohorts, plan, strict=True) for _ in range(left)
    )


def test_a_small_job_waits_at_most_one_turn_behind_a_huge_one() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    for _ in range(1000):
        scheduler.add(Cohort("huge", 8, left=10))
    small = Cohort("small", 8, left=3)
    scheduler.add(small)
    turns = [scheduler.pick() for _ in range(6)]
    assert sum(small in picked for picked in turns) == 3


def test_jobs_share_a_forward_in_equal_parts() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    for job in "ab":
        for _ in range(10):
            scheduler.add(Cohort(job, 2, left=5))
    assert sorted(c.job for c in scheduler.pick()) == ["a", "a", "b", "b"]


def test_within_a_job_the_oldest_goes_first() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(2)
    first, second = Cohort("a", 2, left=2), Cohort("a", 2)
    scheduler.add(first)
    scheduler.add(second)
    assert [c for picked in run(scheduler) for c in picked] == [first, first, second]


def test_a_cohort_larger_than_a_forward_is_refused() -> None:
    with pytest.raises(ValueError, match="9 rows does not fit in a forward of 8"):
        Scheduler(8).add(Cohort("a", 9))


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
            for _ in range(3):
                scheduler.add(Counted(str(job), 2))
        looked = 0
        for _ in range(10):
            assert len(scheduler.pick()) == 16
        return looked

    assert cost(1000) <= cost(100)


def test_room_that_is_too_small_for_one_goes_to_another_who_pays_for_it() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    for job, rows in (("wide", 5), ("narrow", 1)):
        for _ in range(20):
            scheduler.add(Cohort(job, rows))
    picked = [cohort for _ in range(40) for cohort in scheduler.pick()]
    wide, narrow = (sum(c.rows for c in picked if c.job == job) for job in ("wide", "narrow"))
    assert abs(wide - narrow) <= 16


def test_what_may_not_begin_keeps_its_turn_and_what_has_begun_goes_on() -> None:
    scheduler: Scheduler[Cohort] = Scheduler(8)
    begun, later = Cohort("a", 2), Cohort("b", 2)
    scheduler.add(begun)
    assert scheduler.pick() == [begun]
    scheduler.add(later)
    assert scheduler.pick(lambda cohort: False) == [begun]
    assert scheduler.pick(lambda cohort: False) == [begun]
    assert set(map(id, scheduler.pick())) == {id(begun), id(later)}
