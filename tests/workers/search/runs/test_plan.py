"""Plans: what a budget buys, and that it is what a run then spends."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from sitsearch.workers.errors import BudgetTooSmall, Unsuitable
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.search.registry import ALGORITHMS, options_of
from sitsearch.workers.search.runs import dry_run
from sitsearch.workers.search.runs import start as runs_start
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import METHODS, allowance_of, default_method, finish, request, start

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


def test_a_plan_says_what_a_budget_makes_of_open_options() -> None:
    plan = make_plan(request("fk_steering", nfe=300), METHODS["euler_maruyama"])
    particles = plan.chosen["particles"]
    said = f"for this budget: particles {particles}"
    assert particles > 1 and any(line.startswith(said) for line in plan.explanation)
    larger = make_plan(request("fk_steering", nfe=3000), METHODS["euler_maruyama"])
    assert larger.chosen["particles"] > particles
    named = make_plan(
        request("fk_steering", nfe=300, search={"algorithm": "fk_steering", "particles": 5, "funnel": 1.0}),
        METHODS["euler_maruyama"],
    )
    assert named.chosen == {} and not [line for line in named.explanation if line.startswith("for this budget")]


@EACH
def test_the_options_of_a_plan_are_those_of_the_algorithm_and_go_into_json(name: str) -> None:
    asked = request(name, nfe=3000)
    plan = make_plan(asked, METHODS[default_method(name)], METHODS.values())
    search = ALGORITHMS[name]
    assert plan.chosen == dict(search.chosen(allowance_of(asked), options_of(search, asked.search)))
    assert json.loads(plan.model_dump_json())["chosen"].keys() == plan.chosen.keys()
    lines = [line for line in plan.explanation if line.startswith("for this budget: ")]
    assert len(lines) == bool(plan.chosen) and all(option in lines[0] for option in plan.chosen)


@EACH
def test_the_preset_of_the_paper_is_named_with_its_values(name: str) -> None:
    taken = ALGORITHMS[name].paper
    left_out = dict(list(taken.items())[1:])
    named = {key: value for key, value in taken.items() if key not in left_out}
    for options, values in (({}, taken), (named, left_out)):
        asked = request(name, nfe=3000, search={"algorithm": name, "preset": "paper", **options})
        plan = make_plan(asked, METHODS[default_method(name)], METHODS.values())
        (line,) = [line for line in plan.explanation if line.startswith("preset paper: ")]
        assert [part.split()[0] for part in line.removeprefix("preset paper: ").split(", ")] == (list(values) or ["it"])
    assert not [line for line in make_plan(request("random"), METHODS["heun"]).explanation if "preset" in line]


@EACH
@pytest.mark.parametrize("rule", ["rank", "zscore", "gate"])
def test_a_search_by_an_ensemble_has_a_plan(name: str, rule: str) -> None:
    least = {"least": [0.5]} if rule == "gate" else {}
    ensemble = {"name": "ensemble", "members": ["a", "b"], "rule": rule} | least
    alone, together = (
        make_plan(request(name, nfe=777, **more), METHODS[default_method(name)], METHODS.values())
        for more in ({}, {"verifier": ensemble})
    )
    assert together == alone
    with pytest.raises(Unsuitable, match=r"verifier\.members"):
        make_plan(request("random", condition={"classes": [1, 2]}, verifier=ensemble), METHODS["heun"])


class Played(SearchRun):
    """Counts what it is told."""

    rounds_told = candidates_told = remembered = 0

    def tell(self, candidates: Sequence[Candidate]) -> None:
        Played.rounds_told += 1
        Played.candidates_told += len(candidates)
        Played.remembered += self.remembers
        super().tell(candidates)


@EACH
@pytest.mark.parametrize("preset", ["budget", "paper"])
def test_of_a_large_budget_only_the_beginning_is_played_through(
    name: str, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, value, limit in ((dry_run, "MAX_ROUNDS", 200), (dry_run, "MAX_CANDIDATES", 1000)):
        monkeypatch.setattr(module, value, limit)
    monkeypatch.setattr(runs_start, "SearchRun", Played)
    Played.rounds_told = Played.candidates_told = Played.remembered = 0
    asked = request(name, nfe=1_000_000, search={"algorithm": name, "preset": preset})
    plan = make_plan(asked, METHODS[default_method(name)], METHODS.values())
    largest_round = 16_384
    assert 0 < Played.rounds_told <= 200 and Played.candidates_told < 1000 + largest_round
    if not ALGORITHMS[name].exact:
        assert Played.remembered <= dry_run.MAX_REMEMBERED
    assert not plan.exact and plan.candidates > 1000 and plan.nfe.search == 1_000_000


def test_a_set_is_planned_without_a_round() -> None:
    asked = request("random", nfe=10_000_000, condition={"classes": [0, 1, 2]})
    plan = make_plan(asked, METHODS["heun"])
    assert (plan.rounds, plan.candidates, plan.exact, plan.nfe.search) == (3, 1_000_000, True, 10_000_000)
    assert not [line for line in plan.explanation if "depends on the scores" in line]


def test_who_gets_the_budget_of_an_adaptive_allocation_is_said_to_depend_on_scores() -> None:
    asked = request("random", nfe=1600, condition={"classes": list(range(8))}, allocation="adaptive")
    assert (
        "each of 8 conditions gets 5 candidates at least; to which of them the other 120 go depends on the scores"
        in make_plan(asked, METHODS["heun"]).explanation
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
