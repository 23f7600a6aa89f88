"""Plans: what a budget buys, and that it is what a run then spends."""

from __future__ import annotations

import pytest

from sitsearch.workers.errors import BudgetTooSmall
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.dry_run import make_plan
from tests.workers.search.toy import METHODS, default_method, finish, request, start

EACH = pytest.mark.parametrize("name", sorted(ALGORITHMS))


@EACH
@pytest.mark.parametrize("nfe", [200, 777, 3000])
def test_a_plan_is_what_a_run_spends(name: str, nfe: int) -> None:
    finals = {} if ALGORITHMS[name].stochastic else {"sampler": {"final_steps": 9}}
    asked = request(name, nfe=nfe, num_images=2, **finals)
    plan = make_plan(asked, METHODS[default_method(name)])
    run = finish(start(asked))
    assert plan.nfe.budget == nfe == plan.nfe.search + plan.nfe.final + plan.nfe.unspent
    assert plan.exact == ALGORITHMS[name].exact
    if plan.exact:
        assert (plan.nfe.search, plan.nfe.final) == (run.usage.nfe_search, run.usage.nfe_final)
        assert plan.candidates == run.result().candidates


def test_a_plan_explains_itself() -> None:
    asked = request("random", nfe=415, num_images=2, sampler={"final_steps": 9})
    assert make_plan(asked, METHODS["heun"]).explanation == (
        "search: 37 candidates in 3 rounds, 370 NFE; a whole trajectory of 5 heun steps takes 10",
        "final generation: 2 at 9 steps, 36 NFE, kept aside",
        "unspent: 9 NFE, too few for another round",
        "an evaluation takes two network rows (guided): at most 812 forwards",
    )


def test_a_very_long_search_is_planned_by_its_beginning() -> None:
    asked = request("random", nfe=10_000_000, search={"algorithm": "random", "round_size": 1})
    plan = make_plan(asked, METHODS["heun"])
    assert not plan.exact and plan.candidates == plan.rounds == 1_000_000


def test_the_three_axes_of_compute_are_separate() -> None:
    """Rounds by the budget, NFE a candidate by `steps`, NFE of the final generation by `final_steps`."""
    usage = {
        (nfe, steps, final): finish(
            start(request("random", nfe=nfe, sampler={"steps": steps, "final_steps": final}))
        ).usage
        for nfe, steps, final in ((400, 5, None), (800, 5, None), (400, 10, None), (400, 5, 50))
    }
    assert [(u.nfe_search, u.nfe_final) for u in usage.values()] == [(400, 0), (800, 0), (400, 0), (300, 100)]


def test_a_budget_that_leaves_no_room_for_the_final_generation_is_refused_with_the_least_that_would_do() -> None:
    with pytest.raises(BudgetTooSmall, match="at least 110"):
        start(request("random", nfe=109, sampler={"final_steps": 50}))
