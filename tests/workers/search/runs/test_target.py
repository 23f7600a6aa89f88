"""Searches for a score: they end there, and say on the way how far it is."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from pydantic import ValidationError

from sitsearch.workers.errors import Unsuitable
from sitsearch.workers.jobs.job import Extension, Progress, Result, Round, TargetProgress
from sitsearch.workers.jobs.recipe import Integrate, Neighbor, Nudge, Recipe
from sitsearch.workers.jobs.request import MAX_NFE
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.allocation import Seen
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.start import start_run
from sitsearch.workers.search.runs.target import LEAST, drawn, draws, probability, reached_within
from tests.workers.search.toy import METHODS, evaluate, request, start

#: NFE of a candidate of the toy requests.
WHOLE = 10


def drive(run: SearchRun, rounds: int = 10**9) -> tuple[list[Round], list[Progress]]:
    """Drive a run to its end, or until its time is over; its log, and its progress after every round."""
    log, shown = [], []
    while proposals := run.ask(out_of_time=run.rounds >= rounds):
        run.tell(evaluate(proposals, run.phase))
        run.seal()
        log.append(run.log())
        shown.append(run.progress)
    return log, shown


def told(progress: Progress) -> TargetProgress:
    assert progress.target is not None
    return progress.target


def searched(name: str = "random", nfe: int = 4000, score: float = 2.5, **fields: Any) -> SearchRun:
    return start(request(name, nfe=nfe, stop={"target": {"score": score}}, **fields))


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_it_ends_as_soon_as_a_finished_image_has_the_score(name: str) -> None:
    run = searched(name, score=1.0)
    log, shown = drive(run)
    result = run.result()
    assert result.stopped_by == "target" and result.images[0].score >= 1.0 and result.warnings == ()
    search = [logged for logged in log if logged.candidates[0].phase == "search"]
    bests = [max((c.scores["toy"] for c in r.candidates if c.recipe.finished), default=-9.0) for r in search]
    assert [best >= 1.0 for best in bests] == [False] * (len(bests) - 1) + [True]
    assert [told(progress).reached for progress in shown[: len(search)]] == [best >= 1.0 for best in bests]
    last = told(run.progress)
    assert (last.nfe_expected, last.nfe_confident, last.probability_left) == (0, 0, 1.0)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_replayed_log_tells_the_same_at_every_round(name: str) -> None:
    run = searched(name, nfe=700, score=9.0, num_images=3)
    log, shown = drive(run, rounds=3)
    for length in range(len(log) + 1):
        again = searched(name, nfe=700, score=9.0, num_images=3)
        again.replay(log[:length])
        if length:
            assert again.progress == shown[length - 1]
        drive(again, rounds=3)
        assert (again.progress, again.result()) == (run.progress, run.result())


def test_what_is_expected_is_what_it_takes() -> None:
    """From 160 candidates on as many NFE as were expected then, and as seldom more as was said."""
    score = statistics.NormalDist().inv_cdf(0.996)
    expected, took, within = [], [], []
    for seed in range(200):
        run = searched(nfe=40_000, score=score, seed=seed)
        while run.rounds < 10 and (proposals := run.ask()):
            run.tell(evaluate(proposals))
        if (target := told(run.progress)).reached:
            continue
        assert (target.sample, target.seen, target.nfe_left) == ("random", 160, 40_000 - 1600)
        assert target.nfe_expected is not None and target.nfe_confident is not None
        drive(run)
        assert run.result().stopped_by == "target"
        expected.append(target.nfe_expected)
        took.append(run.usage.nfe_search - 1600)
        within.append(took[-1] <= target.nfe_confident + 15 * WHOLE)  # the round it is found in is paid for whole
    noise = 3 * statistics.stdev(took) / len(took) ** 0.5
    assert len(took) > 80 and statistics.median(expected) == pytest.approx(statistics.fmean(took), rel=0.2, abs=noise)
    assert statistics.fmean(within) > 0.9 - 3 * (0.1 * 0.9 / len(took)) ** 0.5  # 0.95, less what the fit is off


def seen_of(*scores: float) -> Seen:
    seen = Seen()
    for score in scores:
        seen = seen.told(score, WHOLE, 0)
    return seen


def test_the_chance_of_a_candidate_is_a_normals_tail_but_for_what_none_of_many_reached() -> None:
    seen = seen_of(*(1.0, -1.0) * 50)
    sd = math.sqrt(100 / 99)
    far = statistics.NormalDist(0, sd).cdf(-3.0)
    assert probability(seen, 3.0, reached=0, independent=True) == pytest.approx(far)
    near = statistics.NormalDist(0, sd).cdf(-1.1)
    bound = probability(seen, 1.1, reached=0, independent=True)
    assert bound is not None and bound < near and (1 - bound) ** 100 == pytest.approx(0.05)
    assert probability(seen, 1.1, reached=0, independent=False) == pytest.approx(near)
    assert probability(seen, 1.0, reached=50, independent=True) == 0.5
    assert probability(seen, 100.0, reached=0, independent=True) is None
    assert probability(seen_of(*[2.0] * 9), 3.0, reached=0, independent=True) is None


def test_how_many_candidates_it_takes_is_geometric() -> None:
    assert draws(0.5, 0.5) == 1 and draws(1.0, 0.95) == 1 and draws(0.01, 0.95) == 299
    rng, p = random.Random(3), 0.02
    counts = [math.ceil(math.log(1 - rng.random()) / math.log(1 - p)) for _ in range(20_000)]
    share = sum(count <= draws(p, 0.9) for count in counts) / len(counts)
    assert share == pytest.approx(0.9, abs=0.01)
    assert reached_within(p, 30) == pytest.approx(sum(count <= 30 for count in counts) / len(counts), abs=0.015)
    assert reached_within(1.0, 1) == 1.0 and reached_within(1.0, 0) == 0.0 and reached_within(p, 0) == 0.0


def test_only_uncut_trajectories_from_plain_noise_are_independent_draws() -> None:
    noise, whole = Recipe(seed=1, round=0, index=0), Integrate(to=1.0, steps=5)
    assert drawn(noise.then(whole), 5)
    for other in (
        noise,
        noise.then(Integrate(to=0.5, steps=3)),
        noise.then(Integrate(to=0.5, steps=3), Integrate(to=1.0, steps=2)),
        noise.then(Neighbor(round=0, index=0, cosine=0.9), whole),
        noise.then(whole.model_copy(update={"nudges": (Nudge(round=0, index=0, radius=0.1),)})),
        noise.model_copy(update={"method": "euler_maruyama"}).then(whole),
    ):
        assert not drawn(other, 5)


def test_of_few_candidates_nothing_is_told() -> None:
    run = searched(search={"algorithm": "random", "round_size": 1})
    _, shown = drive(run, rounds=LEAST)
    few, enough = told(shown[LEAST - 2]), told(shown[LEAST - 1])
    assert (few.seen, few.probability, few.nfe_expected, few.probability_left) == (LEAST - 1, None, None, None)
    assert enough.seen == LEAST and enough.probability is not None


def test_where_a_search_draws_none_all_its_images_are_taken_and_it_says_so() -> None:
    """Particles are cut and looked at. What one costs is all that was spent for it."""
    run = searched("fk_steering", nfe=3000, score=6.0)
    drive(run)
    target = told(run.progress)
    assert (target.sample, target.nfe_left < WHOLE) == ("finished", True) and target.seen >= LEAST
    if target.probability is not None and target.nfe_expected is not None:
        assert target.nfe_expected == math.ceil(run.usage.nfe_search / target.seen / target.probability)
    assert told(drive(searched(nfe=300))[1][-1]).sample == "random"


def test_more_than_any_budget_is_no_number() -> None:
    run = searched(score=6.5)
    drive(run)
    target = told(run.progress)
    assert target.probability is not None and 0 < target.probability < WHOLE / MAX_NFE
    assert target.nfe_expected is None and target.nfe_confident is None
    (warning,) = run.result().warnings
    assert "more NFE than any budget has are expected" in warning


def warnings_of(score: float, nfe: int = 400) -> Result:
    run = searched(nfe=nfe, score=score)
    drive(run)
    return run.result()


def test_a_budget_that_ends_before_says_so_with_what_is_still_expected() -> None:
    run = searched(nfe=400, score=3.5)
    drive(run)
    target, best = told(run.progress), run.progress.best_score
    result = run.result()
    assert result.stopped_by == "budget" and target.nfe_left == 0 and target.probability_left == 0.0
    assert result.warnings == (
        f"the target 3.5 was not reached: the best score is {best:.6g}; by its 40 random candidates, about "
        f"{target.nfe_expected:,} NFE more are expected to be needed, {target.nfe_confident:,} with confidence 0.95",
    )
    assert warnings_of(50.0).warnings[0].endswith("it is out of reach of all that was seen")
    assert warnings_of(3.5, nfe=70).warnings[0].endswith("of fewer than 8 candidates it cannot be told what it takes")


def test_more_confidence_asks_for_more() -> None:
    needed = []
    for confidence in (0.5, 0.95, 0.999):
        run = start(request("random", nfe=400, stop={"target": {"score": 3.5, "confidence": confidence}}))
        drive(run)
        needed.append(told(run.progress).nfe_confident)
    assert None not in needed and sorted(needed) == needed and len(set(needed)) == 3  # type: ignore[type-var]


def test_an_extension_goes_on_towards_the_target() -> None:
    run = searched(nfe=160, score=2.6)
    log, _ = drive(run)
    assert run.result().stopped_by == "budget"
    run.extend(9000)
    assert told(run.progress).nfe_left == 9000 and told(run.progress).probability_left != 0
    log += drive(run)[0]
    assert run.result().stopped_by == "target" and run.result().warnings == ()
    again = searched(nfe=160, score=2.6)
    again.replay(log, [Extension(after_round=1, nfe=9000)])
    assert again.ask() == () and (again.progress, again.result()) == (run.progress, run.result())


def test_the_target_is_refused_where_scores_are_relative_and_of_many_conditions() -> None:
    for rule in ("rank", "zscore"):
        ensemble = {"name": "ensemble", "members": ["a", "b"], "rule": rule}
        with pytest.raises(ValidationError, match=r"`stop\.target` does not go with rule"):
            request("random", verifier=ensemble, stop={"target": {"score": 1.0}})
    for allocation in ("uniform", "adaptive"):
        many = {"condition": {"classes": [0, 1]}, "allocation": allocation}
        with pytest.raises(Unsuitable, match=r"stop\.target: must be left out with many conditions"):
            start_run(request("random", stop={"target": {"score": 1.0}}, **many), METHODS["heun"])


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1, float("nan"), True])
def test_a_confidence_lies_between_0_and_1(confidence: float) -> None:
    with pytest.raises(ValidationError, match="confidence"):
        request("random", stop={"target": {"score": 1.0, "confidence": confidence}})
