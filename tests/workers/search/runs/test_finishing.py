"""A search that ends early still gives as many finished images as were asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from sitsearch.workers.errors import BudgetTooSmall
from sitsearch.workers.jobs.job import Extension, Round
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.algorithms.random_search import RandomSearch
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import METHODS, evaluate, request, rugged, start

EACH = pytest.mark.parametrize("name", sorted(ALGORITHMS))


def end_after(run: SearchRun, rounds: int, score: Callable[[Recipe], float] = rugged) -> list[Round]:
    """Drive a run to its end, its time being over after so many rounds; its log."""
    log = []
    while proposals := run.ask(out_of_time=run.rounds >= rounds):
        run.tell(evaluate(proposals, run.phase, score))
        run.seal()
        log.append(run.log())
    return log


def check_whole(run: SearchRun, images: int) -> None:
    result = run.result()
    assert [image.finished for image in result.images] == [True] * images
    assert all(image.candidate.recipe.finished for image in result.images)
    assert len({image.candidate.recipe for image in result.images}) == images
    assert result.warnings == () and run.progress.nfe_spent <= run.cap
    usage = run.usage
    assert usage.nfe_search + usage.nfe_finish + usage.nfe_final == run.progress.nfe_spent
    assert run.progress.best_score is not None


@EACH
@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("method", sorted(METHODS))
def test_out_of_time_after_any_round_all_images_are_finished_and_within_the_budget(
    name: str, images: int, method: str
) -> None:
    if ALGORITHMS[name].stochastic and not METHODS[method].stochastic:
        pytest.skip("needs a stochastic method")
    finals = {} if METHODS[method].stochastic else {"final_steps": 7}
    asked = request(name, nfe=700, num_images=images, sampler={"method": method, **finals})
    for rounds in (0, 1, 2, 3, 4, 5, 7, 11, 16):
        run = start(asked)
        log = end_after(run, rounds)
        check_whole(run, images)
        if finals:
            assert {c.phase for c in log[-1].candidates} == {"final"} and len(log[-1].candidates) == images
        assert run.result().candidates == sum(len(r.candidates) for r in log if r.candidates[0].phase != "final")


@EACH
def test_the_log_of_a_search_that_ended_early_replays_to_the_same_end(name: str) -> None:
    finals = {} if ALGORITHMS[name].stochastic else {"sampler": {"final_steps": 7}}
    asked = request(name, nfe=700, num_images=4, **finals)
    run = start(asked)
    log = end_after(run, 2)
    for length in range(len(log) + 1):
        again = start(asked)
        again.replay(log[:length])
        end_after(again, 2)
        assert (again.result(), again.progress, again.usage) == (run.result(), run.progress, run.usage)
    whole = start(asked)
    whole.replay(log)
    assert whole.ask(out_of_time=True) == () and whole.result() == run.result()


@EACH
@pytest.mark.parametrize("stop", [{"score": -100.0}, {"patience_nfe": 1}])
def test_stop_rules_finish_what_was_begun(name: str, stop: dict[str, Any]) -> None:
    run = start(request(name, nfe=700, num_images=4, stop=stop))
    end_after(run, 10**9)
    check_whole(run, 4)
    # a single pass may take the whole budget, and then there is nothing to be patient about
    assert run.result().stopped_by in (("score",) if "score" in stop else ("patience", "budget"))


@EACH
def test_an_extension_goes_on_from_where_the_search_stood_and_repays_what_finishing_took(name: str) -> None:
    asked = request(name, nfe=700, num_images=4)
    run = start(asked)
    log = end_after(run, 1)
    owed = run.usage.nfe_finish
    if owed:
        with pytest.raises(BudgetTooSmall, match=f"at least {owed}"):
            run.extend(owed - 1)
    extension = Extension(after_round=run.rounds, nfe=owed + 100)
    run.extend(extension.nfe)
    log += end_after(run, 10**9)
    assert run.progress.nfe_spent <= 700 + owed + 100
    assert run.progress.nfe_spent > 700 + owed + 100 - run.sampling.whole
    recipes = [c.recipe for logged in log for c in logged.candidates]
    assert len(set(recipes)) == len(recipes)
    again = start(asked)
    again.replay(log, [extension])
    assert again.ask() == () and (again.result(), again.progress) == (run.result(), run.progress)


def test_no_image_is_given_twice_when_a_search_goes_on_with_what_was_finished_for_it() -> None:
    """An ODE leads to the same image by whatever name: survivors of the pass under way were finished already."""
    run = start(request("successive_halving", nfe=700, num_images=4))
    end_after(run, 1, score=lambda recipe: rugged(recipe.noise))
    run.extend(run.usage.nfe_finish)
    end_after(run, 10**9, score=lambda recipe: rugged(recipe.noise))
    assert len({image.candidate.recipe.noise for image in run.result().images}) == 4


def test_only_the_last_of_a_trajectory_that_was_scored_twice_is_carried_on() -> None:
    asked = request("successive_halving", nfe=700, num_images=40, sampler={"steps": 8, "method": "euler"})
    run = start(asked)
    log = end_after(run, 2)
    noises = [(c.recipe.round, c.recipe.index) for c in log[-1].candidates]
    assert log[-1].candidates[0].phase == "finish" and len(set(noises)) == len(noises) == 40


class Spendthrift(RandomSearch):
    """Keeps nothing aside: all goes into data predictions."""

    name: ClassVar[str] = "spendthrift"

    def ask(self, state: Any) -> tuple[base.Proposal, ...]:
        count = min(8, state.left)
        return tuple(state.propose(index, state.fresh(index)) for index in range(count))


def test_what_could_not_be_made_or_finished_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ALGORITHMS, "spendthrift", Spendthrift())
    run = start(request("spendthrift", nfe=21, num_images=2, search="spendthrift"))
    end_after(run, 1)  # 13 NFE are left: one is finished for 9, which leaves too little for the other
    result = run.result()
    assert [image.finished for image in result.images] == [True, False]
    assert result.warnings == (
        "images of rank 1 are data predictions, not finished: the budget had no room to finish them",
    )
    few = start(request("spendthrift", nfe=20, num_images=2, search="spendthrift"))
    monkeypatch.setattr(
        Spendthrift, "ask", lambda self, state: (state.propose(0, state.fresh(0)),) * (state.left == 20)
    )
    monkeypatch.setattr(SearchRun, "_finish_proposals", lambda self: ())
    end_after(few, 10**9)
    assert few.result().warnings[0] == "1 of 2 images were made: the budget had no room for more"
