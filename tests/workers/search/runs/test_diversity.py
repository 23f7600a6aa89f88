"""Diverse results: which of the best are chosen, when, and that the choice outlives whoever made it."""

from __future__ import annotations

import asyncio
import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.job import Candidate, Extension, Round
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.diversity import best_set, choose, relative_distances, standardised
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.start import Run
from tests.workers.search.toy import METHODS, default_method, evaluate, finish, request, rugged, start

EACH = pytest.mark.parametrize("name", sorted(ALGORITHMS))


def objective(quality: Sequence[float], distances: Sequence[Sequence[float]], places: Sequence[int], d: float) -> float:
    """J(S) as the module writes it."""
    near = [distances[i][j] for i, j in itertools.combinations(places, 2)]
    return (1 - d) * sum(quality[i] for i in places) / len(places) + d * sum(near) / len(near)


@pytest.mark.parametrize("seed", range(80))
def test_small_sets_are_the_best_of_all(seed: int) -> None:
    draw = random.Random(seed)
    size, dimension, d = draw.randint(4, 12), draw.randint(1, 6), draw.choice([0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    count = draw.randint(2, min(6, size - 1))
    quality = standardised(sorted((draw.gauss(0, 1) for _ in range(size)), reverse=True))
    distances = relative_distances([[draw.gauss(0, 1) for _ in range(dimension)] for _ in range(size)])
    found = best_set(quality, distances, count, d)
    every = [(0, *others) for others in itertools.combinations(range(1, size), count - 1)]
    best = max(objective(quality, distances, places, d) for places in every)
    assert found in every and objective(quality, distances, found, d) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("seed", "count"), [(196, 5), (40, 6), (50, 7)])
def test_swaps_find_what_greed_does_not(seed: int, count: int) -> None:
    """Places on a grid where greedy choice from every pair falls short of the best set."""
    draw, size, d = random.Random(seed), 12 if count < 7 else 11, 0.8
    points = [(float(draw.randint(0, 9)), float(draw.randint(0, 9))) for _ in range(size)]
    quality, distances = standardised([float(-place) for place in range(size)]), relative_distances(points)
    every = [(0, *others) for others in itertools.combinations(range(1, size), count - 1)]
    best = max(objective(quality, distances, places, d) for places in every)
    found = best_set(quality, distances, count, d)
    assert objective(quality, distances, found, d) == pytest.approx(best, abs=1e-12)


def test_distances_are_in_units_of_their_mean_and_scores_without_unit() -> None:
    near = relative_distances([(0.0,), (1.0,), (3.0,)])
    assert near == relative_distances([(0.0,), (1e3,), (3e3,)]) == [[0, 0.5, 1.5], [0.5, 0, 1.0], [1.5, 1.0, 0]]
    assert standardised([3.0, 1.0]) == [1.0, -1.0] and standardised([2.0, 2.0]) == [0.0, 0.0]
    assert relative_distances([(0.3, 0.1)] * 3) == [[0.0] * 3] * 3


def test_of_equal_sets_that_of_the_earlier_candidates_is_taken() -> None:
    alike = [[0.0] * 8 for _ in range(8)]
    assert best_set([0.0] * 8, alike, 4, 0.5) == (0, 1, 2, 3)
    twins = relative_distances([(float(place // 2), 0.1) for place in range(8)])
    assert best_set([0.0] * 8, twins, 2, 1.0) == (0, 6)
    assert best_set(standardised([float(-place) for place in range(8)]), twins, 4, 0.0) == (0, 1, 2, 3)


def test_a_choice_says_what_it_bought() -> None:
    candidates = evaluate([Proposal(id=str(i), recipe=Recipe(seed=0, round=0, index=i), nfe=1) for i in range(4)])
    choice = choose(candidates, [4.0, 3.0, 2.0, 1.0], [(0.0,), (0.0,), (0.0,), (1.0,)], 2, 0.9)
    assert (choice.ids, choice.ranks, choice.among) == (("0", "3"), (0, 3), 4)
    assert (choice.distance, choice.distance_of_top) == (2.0, 0.0)


def modes(recipe: Recipe) -> tuple[float, float]:
    """Where a candidate lies, and its score: two modes, that at -1 better by half of what either's scores differ by."""
    draw = random.Random(recipe.noise.model_dump_json())
    side = draw.choice([-1.0, 1.0])
    return side + draw.uniform(-0.1, 0.1), draw.uniform(0, 0.5) + (0.25 if side < 0 else 0)


class Toy(InMemory[list[float]]):
    """Pictures are places on a line."""

    sets = False

    def __init__(self, run: SearchRun) -> None:
        super().__init__()
        self.run, self.rounds, self.asked = run, list[Round](), 0
        self._scores: dict[float, float] = {}

    async def make(self, proposals: Sequence[Proposal]) -> Made[Any]:
        found = [modes(proposal.recipe) for proposal in proposals]
        self._scores |= dict(found)
        nfe = [proposal.nfe for proposal in proposals]
        return Made(images=[place for place, _ in found], nfe=nfe, forwards=nfe)

    async def score(self, names: Sequence[str], images: Any, conditions: Any, previews: Any) -> list[dict[str, float]]:
        return [{name: self._scores[image] for name in names} for image in images]

    async def score_set(self, images: Any, chosen: Any) -> Any:
        raise AssertionError

    async def features(self, images: Sequence[Any]) -> list[list[float]]:
        self.asked += 1
        return [[image] for image in images]

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, Any]]) -> None:
        await super().log(run, entry, fresh)
        self.rounds.append(run.log())


def driven(run: SearchRun) -> Toy:
    """A run, driven to its end."""
    toy = Toy(run)
    asyncio.run(drive(run, toy))
    return toy


@pytest.mark.parametrize("final_steps", [None, 9])
def test_plain_takes_one_mode_and_diverse_takes_both(final_steps: int | None) -> None:
    sides = {}
    for diversity in (0.0, 0.7):
        asked = request("random", nfe=400, num_images=4, diversity=diversity, sampler={"final_steps": final_steps})
        toy = driven(start(asked))
        images = [toy.images[candidate.id] for candidate in toy.run.best]
        sides[diversity] = {math.copysign(1, image) for image in images}  # type: ignore[arg-type]
        result = toy.run.result()
        scores = [image.score for image in result.images]
        assert len(scores) == 4 and scores == sorted(scores, reverse=True)
        assert scores[0] == max(c.scores["toy"] for r in toy.rounds for c in r.candidates)
        assert {image.candidate.phase for image in result.images} == {"search" if final_steps is None else "final"}
        if diversity:
            assert result.choice is not None and result.choice.among == 16 and result.choice.ranks[0] == 0
            assert result.choice.distance > result.choice.distance_of_top
            kept = {candidate.id for candidate in toy.run.kept}
            assert kept == {*toy.images} and len(kept) == 16 + (0 if final_steps is None else 4)
    assert sides == {0.0: {-1.0}, 0.7: {-1.0, 1.0}}


def test_the_search_itself_is_the_same_and_so_are_those_that_it_chose_among() -> None:
    plain = driven(start(request("zero_order", nfe=400, num_images=3)))
    diverse = driven(start(request("zero_order", nfe=400, num_images=3, diversity=0.5)))
    assert diverse.rounds[:-1] == plain.rounds and plain.asked == 0
    assert (diverse.rounds[-1].candidates, diverse.asked) == ((), 1)
    assert diverse.run.progress.curve == plain.run.progress.curve


@EACH
@pytest.mark.parametrize("nfe", [140, 700])
def test_a_log_of_any_length_leads_to_the_same_result(name: str, nfe: int) -> None:
    """Before the choice was logged it is made again; after that it is taken from the log."""
    finals = {} if ALGORITHMS[name].stochastic else {"sampler": {"final_steps": 7}}
    asked = request(name, nfe=nfe, num_images=3, diversity=0.6, **finals)
    whole = driven(start(asked))
    assert whole.run.progress.nfe_spent <= nfe
    rounds = [Round.model_validate_json(logged.model_dump_json()) for logged in whole.rounds]
    assert len(rounds) >= 2
    for length in {0, len(rounds) // 2, *range(max(0, len(rounds) - 3), len(rounds) + 1)}:
        again = start(asked)
        again.replay(rounds[:length])
        toy = Toy(again)
        made = {c.id: modes(c.recipe) for logged in rounds[:length] for c in logged.candidates}
        toy.images = {candidate.id: made[candidate.id][0] for candidate in again.kept}  # type: ignore[misc]
        asyncio.run(drive(again, toy))
        chosen = any(logged.choice is not None for logged in rounds[:length])
        assert toy.asked == (0 if chosen or again.result().choice is None else 1)
        assert (again.result(), again.progress, again.usage) == (
            whole.run.result(),
            whole.run.progress,
            whole.run.usage,
        )
        assert {*toy.images} == {candidate.id for candidate in whole.run.kept}


def test_what_is_told_after_the_log_has_the_choice_of_the_log() -> None:
    """Features that another device rounds otherwise change nothing any more."""
    asked = request("random", nfe=400, num_images=3, diversity=0.8, sampler={"final_steps": 9})
    whole = driven(start(asked))
    place = next(i for i, logged in enumerate(whole.rounds) if logged.choice is not None)
    logged = whole.rounds[place].choice
    assert logged is not None
    pool = [c.id for c in whole.run._winners.pool]
    other = logged.model_copy(update={"ids": (pool[0], pool[5], pool[7]), "ranks": (0, 5, 7)})
    again = start(asked)
    again.replay([*whole.rounds[:place], whole.rounds[place].model_copy(update={"choice": other})])
    assert again.to_choose == () and again.pool == ()
    finals = [proposal.recipe.noise for proposal in again.ask()]
    assert finals == [c.recipe.noise for name in other.ids for c in whole.run._winners.pool if c.id == name]
    strange = start(asked)
    with pytest.raises(SearchError, match="'9-9' was chosen"):
        strange.replay(
            [
                *whole.rounds[:place],
                Round(round=place, candidates=(), choice=other.model_copy(update={"ids": ("9-9",)})),
            ]
        )


@pytest.mark.parametrize("final_steps", [None, 9])
def test_an_extension_goes_on_from_the_search_and_chooses_anew(final_steps: int | None) -> None:
    fields: dict[str, Any] = {"num_images": 3, "diversity": 0.6, "sampler": {"final_steps": final_steps}}
    final = 0 if final_steps is None else 3 * 2 * final_steps
    asked = request("random", nfe=320 + final, **fields)  # two whole rounds, and two more
    run = start(asked)
    toy = driven(run)
    first = run.result()
    extension = Extension(after_round=run.rounds, nfe=320 + final)
    run.extend(extension.nfe)
    assert run.best == run._winners.top and run.to_choose == ()
    asyncio.run(drive(run, toy))
    whole = driven(start(request("random", nfe=640 + final, **fields)))
    second = run.result()
    assert first.choice is not None and second.choice is not None and whole.run.result().choice is not None
    places = [c.recipe.noise for c in run._winners.chosen]
    assert places == [c.recipe.noise for c in whole.run._winners.chosen]
    assert second.choice.distance == whole.run.result().choice.distance != first.choice.distance
    assert [i.candidate.recipe.noise for i in second.images] == [
        i.candidate.recipe.noise for i in whole.run.result().images
    ]
    assert toy.asked == 2
    again = start(asked)
    again.replay(toy.rounds, [extension])
    assert again.ask() == () and again.to_choose == () and again.result() == second
    assert {*toy.images} == {candidate.id for candidate in again.kept}


@EACH
@pytest.mark.parametrize("out_of_time", [0, 2])
def test_a_search_that_ended_early_chooses_too(name: str, out_of_time: int) -> None:
    run = start(request(name, nfe=700, num_images=3, diversity=0.5))
    toy = Toy(run)
    asyncio.run(drive(run, toy, out_of_time=lambda: run.rounds >= out_of_time))
    result = run.result()
    assert [image.finished for image in result.images] == [True] * 3
    if result.choice is None:
        assert "diversity had nothing to choose from" in result.warnings[-1]
    else:
        assert result.warnings == () and result.choice.among > 3


def test_scores_that_change_choose_among_the_best_as_they_are_in_the_end() -> None:
    verifier = {"name": "ensemble", "members": ["a", "b"]}
    run = start(request("random", nfe=600, num_images=2, diversity=0.5, verifier=verifier))
    every: list[Candidate] = []
    while proposals := run.ask():
        told = [
            c.model_copy(update={"scores": {"a": rugged(c.recipe), "b": modes(c.recipe)[1]}})
            for c in evaluate(proposals, run.phase)
        ]
        every += told
        run.tell(told)
    pool = run.to_choose
    scores: Mapping[Recipe, float] = run._winners._selection.scores([c.recipe for c in every])
    assert [scores[c.recipe] for c in pool] == sorted(scores.values(), reverse=True)[:8]
    run.choose([[rugged(c.recipe)] for c in pool])
    assert run.result().images[0].candidate == pool[0]


def test_no_result_before_the_choice_and_no_choice_without_features() -> None:
    run = start(request("random", nfe=400, num_images=3, diversity=0.5, sampler={"final_steps": 9}))
    with pytest.raises(SearchError, match="features of 0 images where there are 0"):
        run.choose([])
    finish(run)
    assert len(run.to_choose) == 12 == len(run.pool)
    with pytest.raises(SearchError, match="no result yet"):
        run.result()
    with pytest.raises(SearchError, match="features of 11 images where there are 12"):
        run.choose([[0.0]] * 11)
    run.choose([[0.0]] * 12)
    finish(run)
    assert run.result().choice is not None


@EACH
def test_it_is_planned_as_a_plain_search_is(name: str) -> None:
    finals = {} if ALGORITHMS[name].stochastic else {"sampler": {"final_steps": 9}}
    plans = [
        make_plan(request(name, nfe=700, num_images=2, diversity=diversity, **finals), METHODS[default_method(name)])
        for diversity in (0.0, 0.5)
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_images": 1}, "`diversity` goes with `num_images` from 2 to 63, not 1"),
        ({"num_images": 64}, "`diversity` goes with `num_images` from 2 to 63, not 64"),
        ({"condition": {"classes": ["A", "B"]}}, "`diversity` goes with one condition"),
        ({"num_images": 2, "diversity": 1.1}, "less than or equal to 1"),
        ({"num_images": 2, "diversity": True}, "not a boolean"),
    ],
)
def test_it_is_refused_where_there_is_nothing_to_differ(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as refused:
        request("random", **({"diversity": 0.5} | fields))
    assert [error["loc"] for error in refused.value.errors()] == [("diversity",)]


def test_none_is_taken_with_anything() -> None:
    assert request("random", diversity=0, condition={"classes": ["A", "B"]}).diversity == 0
