"""Successive halving on data predictions."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
from pydantic import ValidationError

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.algorithms.successive_halving import (
    FLOOR,
    SURVIVAL,
    HalvingOptions,
    HalvingState,
    fraction,
    worthwhile,
)
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.calibration import GLYPHS, Prior, as_prior
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gauss
from tests.workers.search.toy import evaluate, first_state, request

SEARCH = ALGORITHMS["successive_halving"]
STEPS = 16
#: NFE to the marks after 2, 4 and 8 of 16 Euler steps, and to the end.
COSTS = (3, 2, 4, 7)
Score = Callable[[Recipe], float]
Round = tuple[tuple[Proposal, ...], Sequence[Candidate]]


def noisy(spread: float) -> Score:
    """A final score N(0, 1) of the start noise, that data predictions show with errors N(0, spread^2)."""

    def score(recipe: Recipe) -> float:
        final = gauss("final", recipe.seed, recipe.round, recipe.index)
        error = gauss("error", recipe.seed, recipe.round, recipe.index, recipe.time)
        return final if recipe.finished else final + spread * error

    return score


def first(nfe: int, seed: int = 5, images: int = 1, **options: object) -> HalvingState:
    """The state before the first pass, of Euler steps."""
    search = {"algorithm": "successive_halving", **options}
    sampler = {"method": "euler", "steps": STEPS}
    state = first_state(
        request("successive_halving", nfe=nfe, seed=seed, num_images=images, search=search, sampler=sampler)
    )
    assert isinstance(state, HalvingState)
    return state


def play(state: HalvingState, score: Score) -> tuple[HalvingState, list[Round]]:
    """The search to its end, and its rounds."""
    rounds: list[Round] = []
    while proposals := SEARCH.ask(state):
        rounds.append((proposals, evaluate(proposals, score=score)))
        told = SEARCH.tell(state, *rounds[-1])
        assert isinstance(told, HalvingState)
        state = told
    return state, rounds


def passes(rounds: Sequence[Round]) -> list[list[int]]:
    """How many trajectories there are in each round of each pass; plain trajectories are left out."""
    found: list[list[int]] = []
    for proposals, _ in rounds:
        if proposals[0].recipe.finished and not proposals[0].known:
            continue
        if not proposals[0].known:
            found.append([])
        found[-1].append(len(proposals))
    return found


def best(rounds: Sequence[Round]) -> float:
    """The best final score."""
    return max(c.scores["toy"] for _, told in rounds for c in told if c.recipe.finished)


def test_the_preset_is_classic_halving_whatever_the_scores() -> None:
    for spread in (0.1, 10.0):
        _, rounds = play(first(2000, preset="paper"), noisy(spread))
        assert passes(rounds)[0] == [64, 32, 16, 8]


def test_the_best_go_on_and_their_data_predictions_are_not_paid_for_twice() -> None:
    _, rounds = play(first(300, keep=0.25), noisy(1.0))
    (starts, told), (going_on, _) = rounds[:2]
    ranked = sorted(told, key=lambda candidate: -candidate.scores["toy"])
    assert [p.recipe.prefix(1) for p in going_on] == [c.recipe for c in ranked[: len(going_on)]]
    assert len(going_on) == round(len(starts) / 4)
    assert [{p.nfe for p in proposals} for proposals, _ in rounds[:4]] == [{cost} for cost in COSTS]


def test_so_many_go_on_that_the_best_is_among_them_as_often_as_was_asked() -> None:
    for correlation, survival in ((0.5, 0.8), (0.8, 0.5), (0.9, 0.9)):
        share, count, survived = fraction(200, correlation, survival), 200, 0
        for trial in range(300):
            finals = [gauss("final", trial, i) for i in range(count)]
            rest = (1 - correlation**2) ** 0.5
            scores = [correlation * final + rest * gauss("error", trial, i) for i, final in enumerate(finals)]
            of_best = scores[finals.index(max(finals))]
            survived += sum(score > of_best for score in scores) + 0.5 < share * count  # half of the last one
        assert survived / 300 == pytest.approx(survival, abs=0.08)


def test_the_better_scores_foretell_the_end_the_fewer_go_on() -> None:
    finishing = [worthwhile(64, (r, r, r), COSTS)[-1] for r in (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.99, 1.0)]
    assert finishing == sorted(finishing, reverse=True)
    assert finishing[0] == 1.0 and finishing[-1] * 64 <= 1
    for survival in SURVIVAL[:-1]:
        shares = [fraction(64, r / 20, survival) for r in range(21)]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] == pytest.approx(survival) and shares[-1] * 64 < 1


def test_a_mark_that_tells_nothing_keeps_all_for_the_next() -> None:
    at_first, then, last = worthwhile(64, (0.0, 0.95, 0.0), COSTS)
    assert at_first == 1.0 and then == last < 0.3


def test_it_prunes_more_where_the_noise_is_small_once_it_has_seen_it() -> None:
    finishing = {}
    for spread in (0.1, 3.0):
        state, rounds = play(first(3000), noisy(spread))
        sizes = passes(rounds)
        finishing[spread] = sum(size[-1] for size in sizes[1:]) / sum(size[0] for size in sizes[1:])
        assert sizes[0][:2] == passes(play(first(3000), noisy(1.0))[1])[0][:2]  # the prior's, whatever the scores
        truth = 1 / math.hypot(1, spread)
        assert state.calibration[0].correlation == pytest.approx(truth, abs=0.25)
    assert finishing[0.1] < 0.5 * finishing[3.0]


def test_where_scores_foretell_the_end_it_beats_the_fixed_half_at_the_same_budget() -> None:
    score = noisy(0.05)

    def bests(**options: object) -> list[float]:
        return [best(play(first(1600, seed=seed, **options), score)[1]) for seed in range(80)]

    ours, fixed = bests(), bests(preset="paper")
    gains = [a - b for a, b in zip(ours, fixed, strict=True)]
    assert statistics.mean(gains) > 3 * statistics.stdev(gains) / len(gains) ** 0.5


def test_a_budget_goes_to_equal_passes() -> None:
    """Rather than to one of 64 starts and a small one."""
    sizes = passes(play(first(450, keep=0.5), noisy(1.0))[1])
    assert len(sizes) == 2 and abs(sizes[0][0] - sizes[1][0]) <= 5
    assert passes(play(first(450, keep=0.5, starts=64), noisy(1.0))[1])[0][0] == 64


def test_no_trajectory_goes_on_that_is_unlikely_to_beat_the_best_image_but_a_floor_of_them() -> None:
    """The first pass finds an image that no other comes near."""

    def score(recipe: Recipe) -> float:
        return noisy(0.1)(recipe) + 50 * (recipe.round == 0)

    state = first(1500, quantile=0.9)
    plan = SEARCH.chosen(state.allowance, state.options)
    first_pass, *later = passes(play(state, score)[1])
    assert first_pass[1] == math.ceil(plan["keep"][0] * first_pass[0] - 0.01)
    assert all(size[1] <= math.ceil(FLOOR * size[0]) for size in later) and later
    wanted = passes(play(first(1500, images=40, quantile=0.9), score)[1])
    assert wanted[1][1] > math.ceil(FLOOR * wanted[1][0])  # 40 images are wanted, and not there yet


def test_what_a_search_learned_is_the_prior_of_the_next() -> None:
    state, _ = play(first(3000), noisy(0.1))
    assert [fit.t for fit in state.calibration] == [0.125, 0.25, 0.5]
    prior = [p.model_dump() for p in as_prior(state.calibration)]
    untaught, taught = first(600), first(600, prior=prior)
    keeps = [SEARCH.chosen(s.allowance, s.options)["keep"] for s in (untaught, taught)]
    assert math.prod(keeps[1]) < 0.6 * math.prod(keeps[0])


def test_what_is_chosen_is_what_the_first_pass_does() -> None:
    state = first(500)
    counts = passes(play(state, noisy(1.0))[1])[0]
    assert SEARCH.chosen(state.allowance, state.options) == {
        "starts": counts[0],
        "keep": tuple(round(b / a, 3) for a, b in pairwise(counts)),
    }
    named = first(500, starts=8, keep=0.5)
    assert SEARCH.chosen(named.allowance, named.options) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"marks": (0.5, 0.25)}, "`marks` must ascend"),
        ({"prior": GLYPHS[::-1]}, "`prior` must ascend"),
        ({"prior": ()}, "at least 1 item"),
        ({"prior": (Prior(t=0.5, correlation=0.5).model_dump() | {"correlation": 1.5},)}, "less than or equal to 1"),
        ({"quantile": 1.0}, "less than 1"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HalvingOptions.model_validate(options)
