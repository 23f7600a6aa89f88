"""Search over many conditions that spends where it pays."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from typing import Any

import pytest

from sitsearch.workers.jobs.job import Candidate, Extension, Round
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.adaptive import AdaptiveRun
from sitsearch.workers.search.runs.allocation import Seen, allotted, expected_gain, floor_of, spreads
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.sets import ManyRun
from sitsearch.workers.search.runs.start import start_run
from tests.workers.search.toy import METHODS, evaluate, request, rugged

#: NFE of a candidate, and how the scores of each condition are spread.
WHOLE, SPREADS = 10, (0.1, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 3.0)


def score(recipe: Recipe) -> float:
    """A condition's candidates start from noises of its number."""
    return SPREADS[recipe.round] * rugged(recipe)


def run_of(candidates: int = 160, conditions: int = 8, **fields: Any) -> ManyRun:
    fields = {"allocation": "adaptive"} | fields
    run = start_run(
        request("random", nfe=WHOLE * candidates, condition={"classes": list(range(conditions))}, **fields),
        METHODS["heun"],
    )
    assert isinstance(run, ManyRun)
    return run


def told(proposals: tuple[Proposal, ...]) -> list[Candidate]:
    answers = zip(proposals, evaluate(proposals, score=score), strict=True)
    return [candidate.model_copy(update={"condition": proposal.condition}) for proposal, candidate in answers]


def drive(run: ManyRun) -> list[Round]:
    log = []
    while proposals := run.ask():
        assert run.ask() == proposals
        run.tell(told(proposals))
        run.seal()
        log.append(run.log())
    return log


def shares(log: list[Round]) -> Counter[int]:
    return Counter(candidate.condition for told in log for candidate in told.candidates)


def test_it_finds_better_images_than_even_shares_where_spreads_differ() -> None:
    gains = []
    for seed in range(40):
        found = []
        for allocation in ("adaptive", "uniform"):
            run = run_of(allocation=allocation, seed=seed)
            drive(run)
            assert run.usage.nfe_search == WHOLE * 160
            found.append(statistics.fmean(image.score for image in run.result().images))
        gains.append(found[0] - found[1])
    assert statistics.fmean(gains) > 3 * statistics.stdev(gains) / len(gains) ** 0.5, gains


def test_the_spread_ones_get_more_and_every_condition_its_floor() -> None:
    total: Counter[int] = Counter()
    for seed in range(10):
        log = drive(run_of(seed=seed))
        got = shares(log)
        assert min(got.values()) >= 5 and sum(got.values()) == 160  # a quarter of 20
        total += got
    assert total[7] > 2 * total[0] and total[6] > total[5] > total[3] and total[7] > 10 * 30, total


@pytest.mark.parametrize(
    ("candidates", "conditions", "keep", "floor"),
    [(8, 8, 1, 1), (15, 8, 1, 1), (16, 8, 1, 2), (64, 8, 1, 2), (72, 8, 1, 3), (160, 8, 1, 5), (40, 2, 12, 12)],
)
def test_the_floor_is_a_quarter_of_an_even_share(candidates: int, conditions: int, keep: int, floor: int) -> None:
    assert floor_of(candidates, conditions, keep) == floor


@pytest.mark.parametrize("candidates", [8, 9, 16, 17, 100])
def test_the_budget_is_spent_to_the_last_candidate_and_planned_exactly(candidates: int) -> None:
    run = run_of(candidates)
    log = drive(run)
    result = run.result()
    assert run.usage.nfe_search == WHOLE * candidates and result.stopped_by == "budget"
    plan = make_plan(run.request, METHODS["heun"])
    assert (plan.nfe.search, plan.candidates, plan.rounds) == (WHOLE * candidates, candidates, len(log))
    assert plan.exact
    assert sum(image.nfe or 0 for image in result.images) == WHOLE * candidates
    assert [image.nfe for image in result.images] == [WHOLE * shares(log)[place] for place in range(8)]


def test_every_prefix_of_the_log_is_replayed_to_the_same_end() -> None:
    run = run_of(per_condition=2)
    log = drive(run)
    stored = [json.loads(logged.model_dump_json()) for logged in log]
    for length in range(len(log) + 1):
        again = run_of(per_condition=2)
        again.replay([Round.model_validate(logged) for logged in stored[:length]])
        drive(again)
        assert (again.result(), again.progress) == (run.result(), run.progress)


def test_a_condition_keeps_the_best_that_it_had() -> None:
    run = run_of(per_condition=2)
    log = drive(run)
    everything = [candidate for logged in log for candidate in logged.candidates]
    images = run.result().images
    assert [image.rank for image in images] == list(range(16))
    for place in range(8):
        scores = sorted((c.scores["toy"] for c in everything if c.condition == place), reverse=True)
        assert [images[place].score, images[place + 8].score] == scores[:2]
    curve = [point.score for point in run.progress.curve]
    assert curve == sorted(curve) and curve[-1] == pytest.approx(statistics.fmean(i.score for i in images))


def test_more_of_it_goes_to_those_that_lack_the_score() -> None:
    run = run_of(stop={"score": 0.15})
    log = drive(run)
    reached: set[int] = set()
    for logged in log:
        assert not reached & {candidate.condition for candidate in logged.candidates}
        reached |= {candidate.condition for candidate in logged.candidates if candidate.scores["toy"] >= 0.15}
    assert run.result().stopped_by == "score" and reached == set(range(8))
    assert run.usage.nfe_search < WHOLE * 160


def test_the_floor_passes_over_those_that_reached_the_score() -> None:
    run = run_of(1200, conditions=60, stop={"score": 1.0})
    first = run.ask()
    run.tell(evaluate(first))
    counts = Counter(proposal.condition for proposal in first)
    reached = {p.condition for p, c in zip(first, evaluate(first), strict=True) if c.scores["toy"] >= 1.0}
    assert isinstance(run, AdaptiveRun) and run.floor == 5 and len(first) == 128 and max(counts.values()) == 3
    assert reached and not reached & {proposal.condition for proposal in run.ask()}


def test_patience_ends_it_when_nothing_gets_better() -> None:
    run = run_of(2000, stop={"patience_nfe": 400})
    log = drive(run)
    assert run.result().stopped_by == "patience"
    best, since = dict.fromkeys(range(8), -100.0), 0
    for logged in log:
        better = [c for c in logged.candidates if c.scores["toy"] > best[c.condition]]
        best |= {c.condition: c.scores["toy"] for c in sorted(better, key=lambda c: c.scores["toy"])}
        since = 0 if better else since + sum(c.nfe for c in logged.candidates)
    assert since >= 400


def test_time_ends_it_with_what_there_is_by_slot() -> None:
    run = run_of(600, conditions=200, allocation="adaptive")
    first = run.ask()
    assert [proposal.condition for proposal in first] == list(range(128)), "a floor is begun for all in turns"
    run.tell(evaluate(first))
    assert run.ask(out_of_time=True) == () and run.result().stopped_by == "seconds"
    assert len(run.result().images) == 128
    assert run.result().warnings == ("128 of 200 images were made: the time was over",)


def test_an_end_with_all_images_warns_of_nothing() -> None:
    for stop in ({}, {"score": 0.15}, {"patience_nfe": 100}):
        run = run_of(stop=stop)
        drive(run)
        assert run.result().warnings == () and len(run.result().images) == 8


def test_it_can_be_extended_and_replayed_past_that() -> None:
    run = run_of()
    log = drive(run)
    run.extend(500)
    more = drive(run)
    assert run.usage.nfe_search == WHOLE * 160 + 500 and more
    again = run_of()
    again.replay([*log, *more[:1]], [Extension(after_round=len(log), nfe=500)])
    drive(again)
    assert (again.result(), again.progress) == (run.result(), run.progress)


def test_its_candidates_are_those_of_an_even_allocation() -> None:
    even, adaptive = (
        {candidate.recipe for logged in drive(run_of(allocation=name)) for candidate in logged.candidates}
        for name in ("uniform", "adaptive")
    )
    assert len(even) == len(adaptive) == 160
    assert {recipe for recipe in adaptive if recipe.index < 20} <= even


def test_the_gain_of_a_draw_is_its_integral() -> None:
    step, sd = 1e-3, 2.0
    normal = statistics.NormalDist(0, sd)
    for best in (-3.0, 0.0, 1.0, 5.0):
        points = [best + step * (place + 0.5) for place in range(int(20 / step))]
        integral = sum((s - best) * normal.pdf(s) * step for s in points)
        assert expected_gain(best / sd, sd) == pytest.approx(integral, rel=1e-5)


def seen_of(*scores: float, nfe: int = 10, keep: int = 1) -> Seen:
    seen = Seen()
    for value in scores:
        seen = seen.told(value, nfe, keep)
    return seen


def test_what_was_seen_is_mean_and_spread() -> None:
    seen = seen_of(1e6 + 1, 1e6 + 2, 1e6 + 6, keep=2)
    assert (seen.count, seen.mean, seen.squares) == (3, pytest.approx(1e6 + 3), pytest.approx(14))
    assert seen.best == (1e6 + 6, 1e6 + 2) and seen.nfe == 30


def test_spreads_are_shrunk_to_the_pooled_one() -> None:
    narrow, wide = spreads([seen_of(0, 0.2), seen_of(0, 2)])
    assert 0.02**0.5 < narrow < ((0.02 + 2) / 2) ** 0.5 < wide < 2**0.5
    assert spreads([seen_of(3), seen_of(-1)]) == [1.0, 1.0]


@pytest.mark.parametrize("scores", [(0.0, 0.0), (0.0,)])
def test_where_nothing_tells_them_apart_they_take_turns(scores: tuple[float, ...]) -> None:
    assert allotted([seen_of(*scores)] * 3, 7, [True] * 3) == (0, 1, 2, 0, 1, 2, 0)
    assert allotted([seen_of(*scores)] * 3, 4, [True, False, True]) == (0, 2, 0, 2)
    assert allotted([seen_of(*scores)] * 3, 4, [False] * 3) == ()


def test_a_round_is_not_all_for_the_most_promising() -> None:
    lucky = (0.0, 1.0, -1.0, 0.5, -0.5, 3.0)  # well above what six draws are expected to come to
    more, less = seen_of(*(1.05 * value for value in lucky)), seen_of(*lucky)
    assert allotted([more, less], 1, [True] * 2) == (0,)
    assert set(allotted([more, less], 12, [True] * 2)) == {0, 1}


def test_the_cheaper_of_two_like_conditions_gets_more() -> None:
    scores = (0.0, 1.0, 0.5, -1.0)
    got = Counter(allotted([seen_of(*scores, nfe=20), seen_of(*scores, nfe=10)], 12, [True] * 2))
    assert got[1] > got[0] > 0


def test_a_condition_at_the_bound_of_its_verifier_is_not_promising_for_ever() -> None:
    bound = seen_of(*(-((place * 7 % 50) ** 2) / 100.0 for place in range(200)))  # best 0, again and again
    open_ended = seen_of(*statistics.NormalDist(0, 2).samples(20, seed=1))
    assert Counter(allotted([bound, open_ended], 8, [True] * 2))[1] == 8
