"""Random search is best of N."""

from __future__ import annotations

import statistics

import pytest
from pydantic import ValidationError

from sitsearch.workers.errors import UnknownName
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import METHODS, finish, request, start

#: Expected largest of N standard normals (Harter 1961, Table 1).
EXPECTED_MAXIMUM = {1: 0.0, 4: 1.02938, 16: 1.76599, 64: 2.34373}
NFE = 10


@pytest.mark.parametrize("candidates", EXPECTED_MAXIMUM)
def test_the_expected_best_of_n_is_that_of_order_statistics(candidates: int) -> None:
    bests = []
    for seed in range(300):
        run = finish(start(request("random", nfe=candidates * NFE, seed=seed)))
        assert run.result().candidates == candidates
        bests.append(run.progress.best_score)
    error = statistics.stdev(bests) / len(bests) ** 0.5
    assert statistics.mean(bests) == pytest.approx(EXPECTED_MAXIMUM[candidates], abs=4 * error)


def test_an_unknown_algorithm_or_option_is_refused_by_name() -> None:
    unknown = request("random").model_copy(update={"search": request("random", search="magic").search})
    with pytest.raises(UnknownName, match=r"no algorithm named 'magic'; known: .*random"):
        SearchRun(unknown, METHODS["heun"])
    with pytest.raises(ValidationError, match="round_size"):
        start(request("random", search={"algorithm": "random", "round_size": 0}))


def test_stop_rules_end_the_search_between_rounds() -> None:
    by_score = finish(start(request("random", nfe=10_000, stop={"score": 1.0})))
    assert by_score.result().stopped_by == "score" and by_score.result().images[0].score >= 1.0
    by_patience = finish(start(request("random", nfe=10_000, stop={"patience_nfe": NFE})))
    assert by_patience.result().stopped_by == "patience" and by_patience.result().candidates < 1000
