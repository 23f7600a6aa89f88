"""Budgets in forwards: rows that a guidance interval saves buy more candidates."""

from __future__ import annotations

import pytest

from sitsearch.workers.jobs.job import Round
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import METHODS, default_method, evaluate, request, start

INTERVAL = {"guidance": 1.5, "guidance_interval": (0.3, 0.8)}


def drive(run: SearchRun) -> list[Round]:
    """Drive a run in which every other evaluation took one row."""
    log = []
    while proposals := run.ask():
        told = [c.model_copy(update={"forwards": c.nfe + c.nfe // 2}) for c in evaluate(proposals, run.phase)]
        run.tell(told)
        run.seal()
        log.append(run.log())
    return log


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_all_forwards_are_spent_and_none_more(name: str) -> None:
    asked = request(name, budget={"forwards": 1500}, num_images=2, sampler=INTERVAL)
    run = start(asked)
    log = drive(run)
    assert 1500 - 2 * run.sampling.whole - 2 < run.progress.forwards_spent <= 1500
    assert run.usage.nfe_search > 1500 // 2 and all(image.finished for image in run.result().images)
    for length in range(0, len(log) + 1, max(1, len(log) // 10)):
        again = start(asked)
        again.replay(log[:length])
        drive(again)
        assert (again.result(), again.usage) == (run.result(), run.usage)


def test_the_final_generation_keeps_its_part() -> None:
    run = start(request("random", budget={"forwards": 1500}, num_images=2, sampler=INTERVAL | {"final_steps": 30}))
    drive(run)
    assert run.usage.nfe_final == 120 and run.progress.forwards_spent <= 1500


def test_a_cap_in_nfe_is_kept_whatever_was_saved() -> None:
    run = start(request("random", budget={"forwards": 1500, "nfe": 700}, sampler=INTERVAL))
    drive(run)
    assert run.progress.nfe_spent == 700


def test_a_plan_of_such_a_budget_says_that_it_is_an_estimate() -> None:
    method = METHODS[default_method("random")]
    assert not make_plan(request("random", budget={"forwards": 1500}, sampler=INTERVAL), method).exact
    assert make_plan(request("random", budget={"forwards": 1500}), method).exact
    assert make_plan(request("random", nfe=700, sampler=INTERVAL), method).exact
