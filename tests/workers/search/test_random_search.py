"""Random search is best of N."""

from __future__ import annotations

import statistics

import pytest
from pydantic import ValidationError

from tests.workers.search.test_contract import EVALUATIONS_PER_STEP, NFE, evaluate, finish, request
from workers.errors import UnknownName
from workers.search.run import SearchRun

#: Expected largest of N standard normals (Harter 1961, Table 1).
EXPECTED_MAXIMUM = {1: 0.0, 4: 1.02938, 16: 1.76599, 64: 2.34373}


@pytest.mark.parametrize("candidates", EXPECTED_MAXIMUM)
def test_the_expected_best_of_n_is_that_of_order_statistics(candidates: int) -> None:
    bests = []
    for seed in range(300):
        asked = request("random", budget={"nfe": candidates * NFE}, seed=seed)
        bests.append(finish(SearchRun(asked, EVALUATIONS_PER_STEP)).progress.best_score)
    error = statistics.stdev(bests) / len(bests) ** 0.5
    assert statistics.mean(bests) == pytest.approx(EXPECTED_MAXIMUM[candidates], abs=4 * error)


def test_all_noises_of_a_job_differ() -> None:
    run = SearchRun(request("random", budget={"nfe": 100 * NFE}), EVALUATIONS_PER_STEP)
    finish(run)
    assert run.result().candidates == 100
    recipes = set()
    again = SearchRun(request("random", budget={"nfe": 100 * NFE}), EVALUATIONS_PER_STEP)
    while proposals := again.ask():
        recipes |= {p.recipe for p in proposals}
        again.tell(evaluate(proposals))
    assert len(recipes) == 100


def test_an_unknown_algorithm_or_option_is_refused_by_name() -> None:
    with pytest.raises(UnknownName, match="no algorithm named 'magic'; known: random"):
        SearchRun(request("magic"), EVALUATIONS_PER_STEP)
    with pytest.raises(ValidationError, match="round_size"):
        SearchRun(request("random", search={"algorithm": "random", "round_size": 0}), EVALUATIONS_PER_STEP)


def test_stop_rules_end_the_search_between_rounds() -> None:
    long = {"nfe": 1000 * NFE}
    by_score = finish(SearchRun(request("random", budget=long, stop={"score": 1.0}), EVALUATIONS_PER_STEP))
    assert by_score.result().stopped_by == "score" and by_score.result().images[0].score >= 1.0
    by_patience = finish(SearchRun(request("random", budget=long, stop={"patience_nfe": NFE}), EVALUATIONS_PER_STEP))
    assert by_patience.result().stopped_by == "patience" and by_patience.result().candidates < 1000
