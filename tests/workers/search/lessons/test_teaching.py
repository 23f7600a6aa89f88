"""What finished searches on the toy landscape teach."""

from __future__ import annotations

import statistics

import pytest

from sitsearch.workers.jobs.job import Round
from sitsearch.workers.jobs.recipe import Integrate, Neighbor, Nudge, Recipe
from sitsearch.workers.search.algorithms.arms import ARMS
from sitsearch.workers.search.algorithms.auto import AutoState
from sitsearch.workers.search.bests import expected_best
from sitsearch.workers.search.calibration import CalibratedState
from sitsearch.workers.search.lessons.record import Lesson, Sums
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.target import drawn
from sitsearch.workers.search.runs.teaching import gain_of, lesson_of
from tests.workers.search.toy import METHODS, evaluate, finish, request, rugged, start

WHOLE = 10  # NFE of a trajectory of 5 Heun steps


def taught(name: str, trajectories: int = 64, **changes: object) -> tuple[SearchRun, Lesson]:
    """A finished search and its lesson."""
    run = finish(start(request(name, nfe=trajectories * WHOLE, **changes)))
    lesson = lesson_of(run)
    assert lesson is not None
    return run, lesson


def test_random_search_teaches_how_random_candidates_score() -> None:
    run, lesson = taught("random", 20)
    scores = [rugged(recipe) for recipe in run.finished]
    drawn = lesson.drawn
    assert drawn is not None and len(scores) == drawn.count == lesson.trajectories == 20
    assert drawn.mean == pytest.approx(statistics.fmean(scores))
    assert drawn.squares / 19 == pytest.approx(statistics.variance(scores))
    assert len(drawn.best) == 5, "of 1, 2, 4, 8 and 16"
    for power, (best, square) in enumerate(drawn.best):
        assert best == pytest.approx(expected_best(scores, 2**power)) and square >= best**2
    assert (lesson.found, lesson.gain, lesson.own_options) == (max(scores), None, False)
    assert (lesson.model, lesson.verifier, lesson.algorithm) == ("glyphs", "toy", "random")


def test_the_automatic_search_teaches_what_each_pass_gained_on_its_own_random_candidates() -> None:
    run, lesson = taught("auto", 200)
    state = run.state
    assert isinstance(state, AutoState) and lesson.drawn is not None and state.drawn <= lesson.drawn.count
    plain = [rugged(recipe) for recipe in run.finished if drawn(recipe, 5)]
    spread = statistics.stdev(plain)
    assert set(lesson.arms) == {arm.arm for arm in state.tried} and len(lesson.arms) > 1
    for arm in state.tried:
        gains = [
            (best - expected_best(plain, round(nfe / WHOLE))) / spread
            for best, nfe in zip(arm.found, arm.nfe, strict=True)
        ]
        sums = lesson.arms[arm.arm]
        assert sums.n == arm.passes and sums.mean == pytest.approx(statistics.fmean(gains))
        assert max(arm.found) == arm.best.score and set(arm.found) <= set(run.finished.values())
    assert lesson.gain is not None
    of_its_own = sum(sum(arm.nfe) for arm in state.tried if not ARMS[arm.arm].around)
    assert not state.passes and state.random_nfe == state.drawn * WHOLE <= state.spent - of_its_own


def test_what_an_arm_gains_where_it_knows_no_better_is_nothing() -> None:
    """On white noise a pass that finishes few trajectories finds less than random search, and none finds more."""
    lessons = [taught("auto", 64, seed=seed)[1] for seed in range(40)]
    for arm in ("halving", "random"):
        gains = [lesson.arms[arm].mean for lesson in lessons if arm in lesson.arms]
        assert len(gains) >= 8 and statistics.fmean(gains) < 2 * statistics.stdev(gains) / len(gains) ** 0.5


@pytest.mark.parametrize("name", ["successive_halving", "paths"])
def test_searches_that_prune_teach_their_moments(name: str) -> None:
    run, lesson = taught(name)
    assert isinstance(run.state, CalibratedState)
    assert lesson.marks == run.state.known.marks and lesson.marks


def test_every_algorithm_teaches_what_it_found_as_it_comes() -> None:
    _, lesson = taught("zero_order")
    assert lesson.sums()["found:zero_order:6"] == Sums.of([lesson.found])
    _, lesson = taught("zero_order", search={"algorithm": "zero_order", "neighbors": 2})
    assert lesson.own_options and "found:zero_order:6" not in lesson.sums()
    _, lesson = taught("zero_order", search={"algorithm": "zero_order", "preset": "paper"})
    assert lesson.own_options
    _, lesson = taught("auto", search={"algorithm": "auto", "priors": {"rollover": 2.0}})
    assert not lesson.own_options, "what was learnt is filled in"


def test_a_replayed_search_teaches_the_same() -> None:
    run, rounds = start(request("auto", nfe=600)), list[Round]()
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        run.seal()
        rounds.append(run.log())
    again = start(request("auto", nfe=600))
    again.replay(rounds)
    assert again.ask() == () and lesson_of(again) == lesson_of(run) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {"stop": {"score": 9.0}},
        {"stop": {"patience_nfe": 10_000}},
        {"verifier": {"name": "ensemble", "members": ["toy", "toy2"]}},
    ],
)
def test_what_is_not_to_be_compared_teaches_nothing(changes: dict[str, object]) -> None:
    run = start(request("random", **changes))
    while proposals := run.ask():
        told = evaluate(proposals)
        run.tell([c.model_copy(update={"scores": dict.fromkeys(("toy", "toy2"), 0.5)}) for c in told])
    assert lesson_of(run) is None


def test_a_final_generation_is_no_part_of_it() -> None:
    run = start(request("random", nfe=200, sampler={"final_steps": 10}))
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase, lambda recipe: 9.0 if run.phase == "final" else rugged(recipe)))
    lesson = lesson_of(run)
    assert lesson is not None and lesson.found < 9 and lesson.trajectories == 18
    assert run.result().images[0].score == 9.0


def test_plain_candidates_are_whole_trajectories_from_fresh_noise() -> None:
    fresh, whole = Recipe(seed=1, round=0, index=0), Integrate(to=1.0, steps=5)
    assert drawn(fresh.then(whole), 5) and not drawn(fresh.then(whole), 4) and not drawn(fresh, 5)
    assert not drawn(fresh.then(Neighbor(round=0, index=1, cosine=0.9), whole), 5)
    assert not drawn(fresh.then(Integrate(to=0.4, steps=2), Integrate(to=1.0, steps=3)), 5)
    assert not drawn(fresh.then(whole.model_copy(update={"nudges": (Nudge(round=0, index=0, radius=1),)})), 5)
    assert not drawn(fresh.model_copy(update={"method": "euler_maruyama"}).then(whole), 5)


def test_a_gain_needs_random_candidates_that_tell() -> None:
    scores = [float(place) for place in range(8)]
    assert gain_of(8.0, scores, 8) == pytest.approx(1 / statistics.stdev(scores))
    assert gain_of(8.0, scores[:7], 8) is None and gain_of(8.0, [1.0] * 8, 8) is None
    assert gain_of(8.0, scores, 32) is not None and gain_of(8.0, scores, 33) is None
    assert gain_of(1e9, scores, 8) == 10.0 and gain_of(-1e9, scores, 8) == -10.0


def test_a_sampler_that_chooses_its_steps_teaches_nothing() -> None:
    adaptive = METHODS["heun"].model_copy(update={"adaptive": True})
    assert lesson_of(finish(SearchRun(request("random"), adaptive))) is None
