"""A short form of `python -m tests.simulation`: nothing is lost, and what was mended once is found if it comes back."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import run_schedule

SCHEDULES = 60


def test_whatever_goes_wrong_every_job_ends_as_if_nothing_had(server: Redis) -> None:
    outcomes = [run_schedule(seed, server) for seed in range(SCHEDULES)]
    assert [(outcome.seed, outcome.problem) for outcome in outcomes if outcome.problem] == []
    assert len({kind for outcome in outcomes for kind in outcome.faults}) == 9


@pytest.mark.parametrize(
    "mutant", ["what is answered is not on disk yet", "lost replicas fail the job", "an ended job stays in line"]
)
def test_a_fault_that_was_mended_is_found_when_it_comes_back(server: Redis, mutant: str) -> None:
    with MUTANTS[mutant]():
        assert any(run_schedule(seed, server).problem for seed in range(SCHEDULES))


def test_a_seed_is_one_course_of_events(server: Redis) -> None:
    first, second = run_schedule(7, server), run_schedule(7, server)
    assert [text for _, text in first.story if "fault" in text] == [t for _, t in second.story if "fault" in t]
    assert [at for at, _ in first.story] == [at for at, _ in second.story]
