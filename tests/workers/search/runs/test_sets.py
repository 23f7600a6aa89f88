"""Search over many conditions: an image a slot, chosen greedily."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from sitsearch.workers.errors import BudgetTooSmall, SearchError, Unsuitable
from sitsearch.workers.jobs.job import Candidate, Extension, Round
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.dry_run import make_plan
from sitsearch.workers.search.runs.sets import SetRun
from sitsearch.workers.search.runs.start import Run, start_run
from tests.workers.search.toy import METHODS, evaluate, finish, request, rugged


def run_of(nfe: int = 400, classes: list[int | str] | None = None, **fields: Any) -> SetRun:
    asked = request("random", nfe=nfe, condition={"classes": classes or ["A", 3, "c"]}, **fields)
    run = start_run(asked, METHODS["heun"])
    assert isinstance(run, SetRun)
    return run


def test_slots_go_round_the_classes_and_share_the_budget() -> None:
    run = run_of(nfe=10 * 14 + 9, per_condition=2)
    sizes, classes = [], []
    while proposals := run.ask():
        sizes.append(len(proposals))
        classes.append({p.condition for p in proposals})
        run.tell(evaluate(proposals))
    assert sizes == [3, 3, 2, 2, 2, 2]  # 14 candidates of 10 NFE over 6 slots
    assert classes == [{0}, {1}, {2}] * 2
    assert run.progress.nfe_spent == 140 and run.result().stopped_by == "budget"


def test_a_slot_keeps_its_best_candidate() -> None:
    run = run_of()
    while proposals := run.ask():
        told = evaluate(proposals)
        run.tell(told)
        assert run.best[-1] == max(told, key=lambda c: c.scores["toy"])
    assert [image.candidate for image in run.result().images] == list(run.best)
    assert [image.rank for image in run.result().images] == [0, 1, 2]


def test_the_smallest_budget_is_one_candidate_a_slot() -> None:
    assert len(finish(run_of(nfe=30)).result().images) == 3
    with pytest.raises(BudgetTooSmall, match="at least 30"):
        run_of(nfe=29)


def test_it_is_replayed_to_the_same_end_and_planned_exactly() -> None:
    run, log = run_of(), []
    while proposals := run.ask():
        run.tell(evaluate(proposals))
        run.seal()
        log.append(run.log())
    for length in range(len(log) + 1):
        again = run_of()
        again.replay(log[:length])
        assert (finish(again).result(), again.progress) == (run.result(), run.progress)
    plan = make_plan(run.request, METHODS["heun"])
    assert (plan.nfe.search, plan.candidates, plan.rounds) == (run.usage.nfe_search, run.result().candidates, 3)
    with pytest.raises(SearchError, match="cannot be extended"):
        run_of().replay(log, [Extension(after_round=3, nfe=100)])


def test_time_ends_it_with_the_slots_that_are_filled() -> None:
    run = run_of()
    run.tell(evaluate(run.ask()))
    assert run.ask(out_of_time=True) == ()
    assert run.result().stopped_by == "seconds" and len(run.result().images) == 1
    assert run.result().warnings == ("1 of 3 images were made: the time was over",)
    assert finish(run_of()).result().warnings == ()


def test_every_slot_is_searched_until_its_image_has_the_score() -> None:
    asked = {
        "nfe": 3000,
        "per_condition": 2,
        "stop": {"score": 1.5},
        "search": {"algorithm": "random", "round_size": 4},
    }
    run, log = run_of(**asked), []
    while proposals := run.ask():
        run.tell(evaluate(proposals))
        run.seal()
        log.append(run.log())
    result = run.result()
    assert result.stopped_by == "score" and result.warnings == () and len(result.images) == 6
    assert min(image.score for image in result.images) >= 1.5
    tried: dict[int, list[float]] = {}
    for logged in log:
        assert len(logged.candidates) <= 4 and len({c.recipe.round for c in logged.candidates}) == 1
        for candidate in logged.candidates:
            tried.setdefault(candidate.recipe.round, []).append(candidate.scores["toy"])
    for slot, scores in tried.items():  # none goes on that has the score, and none that its part still buys is left out
        assert max(scores) == result.images[slot].score and max(scores[:-4], default=0.0) < 1.5
    assert run.usage.nfe_search < 3000
    everything = {c.recipe for logged in log for c in logged.candidates}
    assert len(everything) == result.candidates
    whole = run_of(nfe=3000, per_condition=2)
    asked_for = [{p.recipe for p in whole.ask()}]
    while proposals := whole.ask():
        asked_for.append({p.recipe for p in proposals})
        whole.tell(evaluate(proposals))
    assert everything <= set().union(*asked_for), "the candidates are those of a search without the score"
    for length in range(len(log) + 1):
        again = run_of(**asked)
        again.replay(log[:length])
        assert (finish(again).result(), again.progress) == (result, run.progress)


def test_a_slot_that_never_reaches_the_score_gets_its_part_and_no_more() -> None:
    run = finish(run_of(nfe=10 * 100 + 9, stop={"score": 100.0}))
    whole = finish(run_of(nfe=10 * 100 + 9))
    assert run.result().stopped_by == "budget" and run.usage.nfe_search == 1000
    assert [image.candidate for image in run.result().images] == [image.candidate for image in whole.result().images]


def test_a_slot_that_is_cut_short_keeps_what_it_has() -> None:
    run = run_of(nfe=3000, stop={"score": 100.0})
    for _ in range(2):
        run.tell(evaluate(proposals := run.ask()))
    assert len(proposals) == 16 and run.settled == () and len(run.best) == 1
    assert run.ask(out_of_time=True) == ()
    assert run.result().warnings == ("1 of 3 images were made: the time was over",)
    assert run.result().images[0].score == run.progress.curve[-1].score


class SetJudge(InMemory[np.ndarray]):
    """Pictures of one number, made of the recipe; a set is as good as the one that joins it, and better the larger."""

    sets = True

    def __init__(self, dies_after: int | None) -> None:
        super().__init__()
        self.judged: list[list[float]] = []
        self.rounds: list[Round] = []
        self.dies_after = dies_after

    async def make(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        if self.dies_after == len(self.rounds):
            self.dies_after = None
            raise ConnectionError
        images = np.array([rugged(proposal.recipe) for proposal in proposals])
        return Made(images, [p.nfe for p in proposals], [p.nfe for p in proposals])

    async def score_set(self, images: np.ndarray, chosen: Sequence[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
        self.judged.append([float(one) for one in chosen])
        return [float(image) + 100 * len(chosen) for image in images], [*images]

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, np.ndarray]]) -> None:
        await super().log(run, entry, fresh)
        self.rounds.append(run.log())


@pytest.mark.parametrize("dies_after", [None, 0, 1, 3, 5, 7])
def test_a_verifier_of_sets_judges_by_the_slots_that_are_filled(dies_after: int | None) -> None:
    """A slot takes several rounds with `stop.score`; its best so far is none of the set that others join."""
    asked: dict[str, Any] = {"stop": {"score": 150.0}, "search": {"algorithm": "random", "round_size": 8}}
    run, judge = run_of(nfe=1200, **asked), SetJudge(dies_after)
    if dies_after is not None:
        with pytest.raises(ConnectionError):
            asyncio.run(drive(run, judge))
        run = run_of(nfe=1200, **asked)
        run.replay(judge.rounds)
    asyncio.run(drive(run, judge))
    images = run.result().images
    best = [rugged(image.candidate.recipe) for image in images]
    assert [image.score for image in images] == [score + 100 * slot for slot, score in enumerate(best)]
    assert run.progress.round == 5 + 5 + 1  # 40 candidates for each of the slots that stay below the score, and 8
    assert judge.judged[-1] == best[:2]


def test_patience_is_refused_where_the_budget_is_shared_evenly() -> None:
    with pytest.raises(Unsuitable, match=r"stop\.patience_nfe: must be left out"):
        run_of(stop={"patience_nfe": 100})
    with pytest.raises(ValidationError, match="round_size"):
        run_of(search={"algorithm": "random", "round_size": 0})


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [({"num_images": 2}, "num_images"), ({"sampler": {"final_steps": 9}}, "sampler.final_steps")],
)
def test_what_does_not_go_with_many_conditions_is_named(fields: dict[str, Any], at_fault: str) -> None:
    with pytest.raises(Unsuitable, match=at_fault):
        run_of(**fields)


def test_too_many_images_and_a_stray_per_condition_are_refused() -> None:
    with pytest.raises(ValidationError, match="at most 1024"):
        run_of(classes=list(range(62)), per_condition=17)
    with pytest.raises(ValidationError, match="per_condition"):
        request("random", per_condition=2)
