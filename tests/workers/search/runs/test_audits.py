"""What auditors say of winners, next to the candidates that they are compared with."""

from __future__ import annotations

import statistics

import pytest

from sitsearch.workers.errors import Unsuitable
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.audits import BASELINE, Audits
from sitsearch.workers.search.runs.estimates import audited, standing
from tests.workers.search.toy import evaluate, request, start

GUIDED = {"guide": "toy", "auditors": ["other"]}


def candidates(count: int, round: int = 0):  # type: ignore[no-untyped-def]
    recipes = [Recipe(seed=1, round=round, index=i).then(Integrate(to=1.0, steps=2)) for i in range(count)]
    proposals = [Proposal(id=f"{round}-{i}", recipe=recipe, nfe=2) for i, recipe in enumerate(recipes)]
    return evaluate(proposals)


def audits_with(baseline: list[float], *winners: float) -> tuple[Audits, object]:
    audits = Audits(["other"], plain=False, compares=True)
    audits.compare([{"other": score} for score in baseline])
    seen = candidates(len(winners), round=7)
    for candidate, score in zip(seen, winners, strict=True):
        audits.add(candidate, {"other": score})
    return audits, seen[-1]


def test_a_standing_is_the_standardised_score_with_its_error() -> None:
    baseline = [float(i) for i in range(16)]
    found = standing(20.0, baseline)
    assert found is not None
    assert found[0] == pytest.approx((20 - 7.5) / statistics.stdev(baseline))
    assert 0.5 < found[1] < 1.6
    assert standing(1.0, baseline[:7]) is None


def test_the_interval_of_a_standing_holds_the_true_one_at_its_level() -> None:
    """Winners at a true standing of 1.5 by a normal baseline."""
    from random import Random

    random, held = Random(0), 0
    for _ in range(2000):
        low_high = standing(1.5, [random.gauss(0, 1) for _ in range(BASELINE)])
        assert low_high is not None
        held += abs(low_high[0] - 1.5) <= low_high[1]
    assert 0.93 < held / 2000 < 0.99


def test_several_auditors_are_averaged() -> None:
    baseline = [{"a": float(i), "b": float(-i)} for i in range(10)]
    found = audited({"a": 9.0, "b": 0.0}, baseline)
    assert found is not None and found.method == "audited" and found.low < found.score < found.high
    assert audited({"a": 9.0, "b": 0.0}, baseline[:5]) is None and audited({}, baseline) is None


def test_a_winner_that_auditors_like_less_than_the_first_candidates_is_flagged() -> None:
    baseline = [float(i % 4) for i in range(16)]
    audits, winner = audits_with(baseline, -9.0)
    assert audits.hacking(winner) == ("other",)  # type: ignore[arg-type]
    for good in (1.0, 3.0, -0.5):
        audits, winner = audits_with(baseline, good)
        assert audits.hacking(winner) == ()  # type: ignore[arg-type]
    assert Audits([], plain=False, compares=True).hacking(None) is None


def test_auditors_turn_down_a_winner_that_is_beyond_doubt_below_an_earlier_one() -> None:
    baseline = [float(i % 4) for i in range(16)]
    for winners, down in (((4.0, -6.0), True), ((4.0, 3.5), False), ((4.0,), False), ((-6.0, 4.0), False)):
        assert audits_with(baseline, *winners)[0].turned_down == down


def driven(asked, opinion):  # type: ignore[no-untyped-def]
    """A run to its end, with the log of it, audited by `opinion` of a candidate."""
    run, log = start(asked), []
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        if others := run.to_compare:
            run.compare([{"other": opinion(candidate)} for candidate in others])
        if (winner := run.to_audit) is not None:
            run.audit({"other": opinion(winner)})
        run.seal()
        log.append(run.log())
    return run, log


def test_a_guided_searchs_estimate_is_its_auditors_and_survives_a_replay() -> None:
    asked = request("random", nfe=800, search={"algorithm": "random", "round_size": 4}, **GUIDED)
    run, log = driven(asked, lambda candidate: candidate.scores["toy"] + candidate.recipe.index % 3)
    assert sum(len(logged.baseline) for logged in log) == BASELINE
    (winner,) = run.result().images
    assert winner.estimate is not None and winner.estimate.method == "audited"
    again = start(asked)
    again.replay([type(logged).model_validate_json(logged.model_dump_json()) for logged in log])
    assert again.ask() == () and again.result() == run.result()


def test_a_search_that_adapts_has_an_audited_estimate_and_random_search_its_own() -> None:
    opinion = lambda candidate: candidate.scores["toy"]  # noqa: E731
    adapted, _ = driven(request("zero_order", nfe=2000, auditors=["other"]), opinion)
    plain, _ = driven(request("random", nfe=2000, auditors=["other"]), opinion)
    methods = [run.result().images[0].estimate.method for run in (adapted, plain)]
    assert methods == ["audited", "another_seed"]


def test_a_search_ends_when_auditors_turn_down_its_best() -> None:
    asked = request(
        "random", nfe=4000, search={"algorithm": "random", "round_size": 4}, stop={"audited": True}, **GUIDED
    )
    run, log = driven(asked, lambda candidate: -100.0 * (candidate.recipe.round > 5) + candidate.recipe.index % 3)
    assert run.result().stopped_by == "audited" and len(log) < 60
    again = start(asked)
    again.replay(log)
    assert again.ask() == () and again.result() == run.result()


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"guide": "toy"}, "auditors"), ({"stop": {"audited": True}}, "stop.audited")],
)
def test_what_needs_auditors_says_so(fields: dict[str, object], field: str) -> None:
    with pytest.raises(Unsuitable) as refused:
        start(request("random", nfe=800, **fields))
    assert refused.value.field == field
    start(request("random", nfe=800, guide={"verifier": "toy", "unaudited": True}))
