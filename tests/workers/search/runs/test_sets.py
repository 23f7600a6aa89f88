"""Search over many conditions: an image a slot, chosen greedily."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sitsearch.workers.errors import BudgetTooSmall, SearchError, Unsuitable
from sitsearch.workers.jobs.job import Extension
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.sets import SetRun
from sitsearch.workers.search.runs.start import start_run
from tests.workers.search.toy import METHODS, evaluate, finish, request


def run_of(nfe: int = 400, classes: list[int | str] | None = None, **fields: Any) -> SetRun:
    asked = request("random", nfe=nfe, condition={"classes": classes or ["A", 3, "c"]}, **fields)
    run = start_run(asked, METHODS["heun"])
    assert isinstance(run, SetRun)
    return run


def test_slots_go_round_the_classes_and_share_the_budget() -> None:
    run = run_of(nfe=10 * 14 + 9, per_condition=2)
    sizes, classes = [], []
    while proposals := run.ask():
        sizes.append(len(proposals))
        classes.append({p.condition for p in proposals})
        run.tell(evaluate(proposals))
    assert sizes == [3, 3, 2, 2, 2, 2]  # 14 candidates of 10 NFE over 6 slots
    assert classes == [{0}, {1}, {2}] * 2
    assert run.progress.nfe_spent == 140 and run.result().stopped_by == "budget"


def test_a_slot_keeps_its_best_candidate() -> None:
    run = run_of()
    while proposals := run.ask():
        told = evaluate(proposals)
        run.tell(told)
        assert run.best[-1] == max(told, key=lambda c: c.scores["toy"])
    assert [image.candidate for image in run.result().images] == list(run.best)
    assert [image.rank for image in run.result().images] == [0, 1, 2]


def test_the_smallest_budget_is_one_candidate_a_slot() -> None:
    assert len(finish(run_of(nfe=30)).result().images) == 3
    with pytest.raises(BudgetTooSmall, match="at least 30"):
        run_of(nfe=29)


def test_it_is_replayed_to_the_same_end_and_planned_exactly() -> None:
    run, log = run_of(), []
    while proposals := run.ask():
        run.tell(evaluate(proposals))
        log.append(run.log())
    for length in range(len(log) + 1):
        again = run_of()
        again.replay(log[:length])
        assert (finish(again).result(), again.progress) == (run.result(), run.progress)
    plan = make_plan(run.request, METHODS["heun"])
    assert (plan.nfe.search, plan.candidates, plan.rounds) == (run.usage.nfe_search, run.result().candidates, 3)
    with pytest.raises(SearchError, match="cannot be extended"):
        run_of().replay(log, [Extension(after_round=3, nfe=100)])


def test_time_ends_it_with_the_slots_that_are_filled() -> None:
    run = run_of()
    run.tell(evaluate(run.ask()))
    assert run.ask(out_of_time=True) == ()
    assert run.result().stopped_by == "seconds" and len(run.result().images) == 1


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [({"num_images": 2}, "num_images"), ({"sampler": {"final_steps": 9}}, "sampler.final_steps")],
)
def test_what_does_not_go_with_many_conditions_is_named(fields: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(Unsuitable, match=at_fault):
        run_of(**fields)


def test_too_many_images_and_a_stray_per_condition_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1024"):
        run_of(classes=list(range(62)), per_condition=17)
    with pytest.raises(ValidationError, match="per_condition"):
        request("random", per_condition=2)
