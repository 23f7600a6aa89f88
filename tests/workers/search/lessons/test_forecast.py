"""What a plan says of the outcome."""

from __future__ import annotations

from typing import Any

import pytest

from sitsearch.workers.search.lessons.forecast import Forecast, forecast
from sitsearch.workers.search.lessons.record import Learnt, Sums, fields_of
from tests.workers.search.lessons.many import fields_of_all
from tests.workers.search.lessons.test_record import normal_lessons
from tests.workers.search.toy import allowance_of, request

#: Random searches of 64 candidates, and so the best of 40 is known.
RANDOM = fields_of_all(normal_lessons(50, 64))
TRAJECTORIES = 40


def told(name: str = "zero_order", sums: dict[str, list[float]] | None = None, **changes: Any) -> Forecast:
    """The forecast of a search of 40 trajectories, after random searches and what `sums` say."""
    bounds = changes.pop("bounds", (None, None))
    known = changes.pop("known", RANDOM)
    asked = request(name, nfe=10 * TRAJECTORIES, **changes)
    fields = known | fields_of({key: Sums.of(values) for key, values in (sums or {}).items()})
    return forecast(asked, allowance_of(asked), Learnt(fields), bounds)


def test_nothing_is_said_where_nothing_is_known() -> None:
    for name in ("random", "zero_order", "paths"):
        assert told(name, known={}) == Forecast()


def test_random_search_is_foretold_for_every_algorithm() -> None:
    found = told("random")
    assert found.random is not None and found.random.score == Learnt(RANDOM).random_best(TRAJECTORIES).score  # type: ignore[union-attr]
    assert (found.score, found.warning) == (None, None)
    (line,) = found.explanation
    assert "random search with this budget, 40 trajectories" in line
    assert "by 50 searches with glyphs and toy here" in line
    assert told("zero_order").random == found.random


def test_scores_are_not_foretold_beyond_what_the_verifier_gives() -> None:
    found = told("random", bounds=(0.0, 6.0))
    assert found.random is not None and 0 < found.random.low < found.random.score <= found.random.high == 6.0


def test_an_algorithm_is_expected_to_gain_what_it_gained() -> None:
    found = told(sums={"gain:zero_order:5": [0.4, 0.6, 0.5, 0.5, 0.5]})
    assert found.random is not None and found.score is not None and found.warning is None
    assert found.score - found.random.score == pytest.approx(0.5, rel=0.05), "spreads are 1"
    assert found.explanation[-1].startswith("expected of zero_order: ")
    assert told(sums={"gain:zero_order:5": [0.5] * 4}).score is None, "too few searches"
    assert told(sums={"gain:zero_order:4": [0.5] * 9}).score is None, "with another budget"


LESS, AS_GOOD = [-0.5, -0.4, -0.6, -0.5, -0.5], [-0.5, 0.7, -0.6, 0.4, -0.5]


@pytest.mark.parametrize(
    ("gains", "warned"), [(LESS, True), (LESS[:4], False), (AS_GOOD, False), ([-g for g in LESS], False)]
)
def test_it_warns_where_random_search_did_better(gains: list[float], warned: bool) -> None:
    found = told(sums={"gain:zero_order:5": gains})
    assert (found.warning is not None) == warned
    if warned:
        assert "5 searches with about this budget here by zero_order found 0.50 standard deviations less" in str(
            found.warning
        )
        assert found.explanation[-1] == f"warning: {found.warning}"


@pytest.mark.parametrize(
    ("scores", "warned"), [([1.0, 1.2, 0.8, 1.0, 1.0], True), ([1.0] * 4, False), ([7.0] * 9, False)]
)
def test_algorithms_without_random_candidates_of_their_own_are_compared_by_scores(
    scores: list[float], warned: bool
) -> None:
    found = told("paths", {"found:paths:5": scores})
    assert (found.warning is not None) == warned
    assert told("paths", {"found:paths:5": scores}, known={}).warning is None, "random search is not known"


def test_options_of_its_own_make_it_another_algorithm() -> None:
    found = told(sums={"gain:zero_order:5": LESS}, search={"algorithm": "zero_order", "neighbors": 2})
    assert found.random is not None and (found.score, found.warning) == (None, None)


def test_scores_of_an_ensemble_are_not_foretold() -> None:
    assert told(verifier={"name": "ensemble", "members": ["toy", "other"]}) == Forecast()


def test_the_automatic_search_says_what_it_intends() -> None:
    found = told("auto", known={}, search={"algorithm": "auto", "priors": {"halving": 1.5}})
    assert [(arm.arm, arm.prior) for arm in found.arms][:2] == [("halving", 1.5), ("rollover", 1.0)]
    assert found.share == 0.125 and found.random is None
    assert "12.5% of the NFE to random search" in found.explanation[0] and "halving +1.50" in found.explanation[0]
    steps = told("auto", known={}, sampler={"final_steps": 8})
    assert {arm.arm for arm in steps.arms} == {"halving", "revisit", "random"}, "no other noise may be drawn"
