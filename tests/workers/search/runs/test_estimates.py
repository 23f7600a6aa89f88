"""What the winner's score is worth."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from typing import Any

import pytest

from sitsearch.workers.search.runs.estimates import another_seed, left_out
from tests.workers.search.runs.test_selection import MEMBERS, told
from tests.workers.search.toy import evaluate, finish, request, start

#: Scores of other shapes: no ceiling, a slower fall, a ceiling, and log-probabilities.
SHAPES: dict[str, Callable[[random.Random], float]] = {
    "normal": lambda rng: rng.gauss(0, 1),
    "exponential": lambda rng: rng.expovariate(1),
    "uniform": lambda rng: rng.random(),
    "log-probability": lambda rng: -math.exp(rng.gauss(-2, 1.5)),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [32, 100])
def test_another_seed_is_right_in_the_mean_and_within_the_interval_as_often_as_it_says(shape: str, count: int) -> None:
    rng, draw, runs = random.Random(count), SHAPES[shape], 1000
    errors, bests, within = [], [], 0
    for _ in range(runs):
        found = another_seed([draw(rng) for _ in range(count)])
        best = max(draw(rng) for _ in range(count))
        assert found is not None
        errors.append(found.score - best)
        bests.append(best)
        within += found.low <= best <= found.high
    noise = 3 * statistics.stdev(errors) / runs**0.5
    assert statistics.fmean(errors) == pytest.approx(0, abs=0.1 * statistics.stdev(bests) + noise)
    assert within / runs >= 0.95 - 3 * (0.05 * 0.95 / runs) ** 0.5


def test_the_mean_best_of_fewer_is_that_over_all_subsets() -> None:
    """Of 32 scores of which one is not 0, half the subsets of 16 have it, a quarter of those of 8, an eighth of 4."""
    found = another_seed([1.0] + [0.0] * 31)
    assert found is not None  # the gain of doubling would be 2-fold, and is taken to be 1-fold
    assert found.score == pytest.approx(1 / 2 + 1 / 4)
    same = another_seed([3.0] * 40)
    assert same is not None and same.score == pytest.approx(3.0) and (same.low, same.high) == (3.0, 3.0)


def test_too_few_give_no_estimate() -> None:
    assert another_seed([0.5] * 31) is None and another_seed([0.5] * 32) is not None
    assert left_out([(0.0, 0.0)] * 7, [[0.0, 0.0]] * 7) is None


def test_a_member_that_is_pure_chance_gives_the_winner_away() -> None:
    """Two members that agree on nothing: what one chooses is, to the other, like any candidate."""
    rng, found = random.Random(1), []
    for _ in range(300):
        rows = [(rng.gauss(0, 1), rng.gauss(0, 1)) for _ in range(64)]
        estimate = left_out(rows, [list(row) for row in rows])
        assert estimate is not None
        found.append(estimate.score)
    assert statistics.fmean(found) == pytest.approx(0, abs=4 * statistics.stdev(found) / 300**0.5)
    rows = [(x, 2 * x) for x in (rng.gauss(0, 1) for _ in range(64))]
    agreed = left_out(rows, [list(row) for row in rows])
    assert agreed is not None and agreed.score > 1.5 and agreed.high - agreed.low == pytest.approx(0, abs=1e-9)


def test_every_winner_of_a_random_search_has_one_and_only_it() -> None:
    result = finish(start(request("random", nfe=640, num_images=3))).result()
    scores = [image.estimate for image in result.images]
    assert scores[0] is not None and scores[1:] == [None, None]
    assert scores[0].method == "another_seed" and scores[0].low < scores[0].score < scores[0].high


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("random", {"nfe": 300}),  # too few
        ("random", {"nfe": 640, "stop": {"score": 100.0}}),  # when it ends depends on the scores
        ("zero_order", {"nfe": 640}),  # candidates depend on one another
    ],
)
def test_where_nothing_honest_can_be_said_nothing_is(name: str, changes: dict[str, Any]) -> None:
    assert finish(start(request(name, **changes))).result().images[0].estimate is None


@pytest.mark.parametrize("rule", ["rank", "zscore"])
def test_an_ensemble_is_asked_what_it_thinks_of_one_anothers_winners(rule: str) -> None:
    run = start(request("zero_order", nfe=640, verifier={"name": "ensemble", "members": MEMBERS, "rule": rule}))
    everyone = []
    while proposals := run.ask():
        everyone += told(proposals)
        run.tell(told(proposals))
    estimate = run.result().images[0].estimate
    columns = [[c.scores[name] for c in everyone] for name in MEMBERS]
    places = [column.index(max(column)) for column in reversed(columns)]  # each is judged by the other's favourite
    z = [(c[p] - statistics.fmean(c)) / statistics.pstdev(c) for c, p in zip(columns, places, strict=True)]
    assert estimate is not None and estimate.method == "left_out"
    assert estimate.score == pytest.approx(statistics.fmean(z))
    assert estimate.high - estimate.score == pytest.approx(12.706 * abs(z[0] - z[1]) / 2)


def test_it_is_of_the_search_and_not_of_the_final_generation() -> None:
    plain = finish(start(request("random", nfe=640))).result().images[0].estimate
    run = start(request("random", nfe=640 + 200, sampler={"final_steps": 100}))
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase, score=lambda _: 99.0) if run.phase == "final" else evaluate(proposals))
    assert run.result().images[0].score == 99.0 and run.result().images[0].estimate == plain
