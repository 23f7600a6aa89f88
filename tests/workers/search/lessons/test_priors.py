"""What a request leaves open is filled in from what was learnt."""

from __future__ import annotations

import random
from typing import Any

import pytest

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.algorithms.arms import ARMS
from sitsearch.workers.search.calibration import GLYPHS
from sitsearch.workers.search.lessons.priors import arm_priors, time_priors, with_learnt
from sitsearch.workers.search.lessons.record import Learnt
from sitsearch.workers.search.registry import ALGORITHMS, options_of
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.teaching import lesson_of
from tests.workers.search.lessons.many import learnt, learnt_from
from tests.workers.search.toy import evaluate, request, start

KNOWN = learnt(
    arm__halving=[2.5] * 12,
    arm__region=[0.9] * 3,
    residual__16=(60.0, 12.0),
    variance__16=(60.0, 120.0),
    residual__32=(7.0, 7.0),
    variance__32=(7.0, 7.0),
)
#: The opposite of it, and more.
OTHER = learnt(arm__halving=[0.0] * 50, residual__16=(500.0, 9.0), variance__16=(500.0, 9.0))


def test_arms_of_which_enough_passes_ended_have_gains_drawn_towards_what_is_shipped() -> None:
    assert arm_priors(KNOWN) == {"halving": (4 * ARMS["halving"].prior + 12 * 2.5) / 16}
    assert arm_priors(Learnt()) == {}


def test_times_of_which_enough_pairs_were_seen_have_correlations_drawn_towards_what_is_shipped() -> None:
    first, before, learned, after = time_priors(KNOWN)
    assert (first["t"], before["t"]) == (0.0, 0.125) and after == {"t": 0.5, "correlation": 0.9, "n": 4.0}
    left = (4 * (1 - 0.7**2) + 6.0) / 64
    assert learned == {"t": 0.25, "correlation": pytest.approx((1 - left) ** 0.5, abs=1e-3), "n": 32.0}
    assert time_priors(Learnt()) == []


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("auto", "priors", arm_priors(KNOWN)),
        ("successive_halving", "prior", time_priors(KNOWN)),
        ("paths", "prior", time_priors(KNOWN)),
    ],
)
def test_open_options_are_filled_in_and_named_ones_are_left(name: str, option: str, value: Any) -> None:
    asked = request(name)
    filled = with_learnt(asked, KNOWN)
    assert filled.search.options == {option: value} and filled.search.algorithm == name
    assert GenerateRequest.model_validate_json(filled.model_dump_json(by_alias=True)) == filled
    assert options_of(ALGORITHMS[name], filled.search) != options_of(ALGORITHMS[name], asked.search)
    assert with_learnt(filled, OTHER) == filled
    assert with_learnt(asked, Learnt()) is asked


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"algorithm": "auto", "preset": "paper"}},
        {"search": {"algorithm": "auto", "priors": {}}},
        {"search": "zero_order"},
        {"verifier": {"name": "ensemble", "members": ["toy", "other"]}},
        {"condition": {"classes": [0, 1]}},
    ],
)
def test_where_nothing_is_open_nothing_is_filled_in(changes: dict[str, Any]) -> None:
    asked = request("auto", **changes)
    assert with_learnt(asked, KNOWN) is asked


def foretold(recipe: Recipe) -> float:
    """A final score N(0, 1) that every data prediction shows exactly."""
    return random.Random(f"{recipe.seed} {recipe.round} {recipe.index}").gauss(0, 1)


def test_searches_that_prune_teach_what_scores_are_worth() -> None:
    lessons = []
    for seed in range(12):
        run = start(request("successive_halving", nfe=400, seed=seed, sampler={"steps": 16}))
        while proposals := run.ask():
            run.tell(evaluate(proposals, run.phase, foretold))
        lesson = lesson_of(run)
        assert lesson is not None
        lessons.append(lesson)
    found = {prior["t"]: prior["correlation"] for prior in time_priors(learnt_from(lessons))}
    shipped = {prior.t: prior.correlation for prior in GLYPHS}
    assert all(found[t] > shipped[t] for t in (0.125, 0.25)) and found[0.125] > 0.9

    def starts(asked: GenerateRequest) -> int:
        return len(SearchRun(asked, run.sampling.method).ask())

    asked = request("successive_halving", nfe=400, sampler={"steps": 16})
    filled = with_learnt(asked, learnt_from(lessons))
    assert starts(filled) > starts(asked), "the better scores foretell the end, the more are started"
