"""Searches of the start noise against random search where neighbours are alike, and where not, on real start noises."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sitsearch.models.noise import gaussian, neighbor
from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from sitsearch.workers.search.algorithms.trust_region import TrustRegionState
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.run import SearchRun
from tests.workers.search.toy import evaluate, first_state, request, rugged, start

SHAPE = (1, 8, 8)
CANDIDATES, SEEDS = 64, 40
WALKS = pytest.mark.parametrize("name", ["zero_order", "trust_region"])
Score = Callable[[Recipe], float]


def noise(recipe: Recipe) -> Tensor:
    """The start noise that the engine would make of a recipe."""
    return _noise(recipe.noise)


@functools.lru_cache(maxsize=4096)
def _noise(recipe: Recipe) -> Tensor:
    if not recipe.ops:
        return gaussian(recipe.seed, recipe.round, recipe.index, SHAPE)
    op = recipe.ops[-1]
    assert isinstance(op, Neighbor)
    return neighbor(_noise(recipe.prefix(len(recipe.ops) - 1)), op.cosine, recipe.seed, op.round, op.index)


def smooth(recipe: Recipe) -> float:
    """A linear function of the noise, of variance 1: neighbours score alike."""
    return float(noise(recipe).sum()) / noise(recipe).numel() ** 0.5


def wavy(recipe: Recipe) -> float:
    """A cosine of each dimension: smooth, with many a top."""
    return float((2 * noise(recipe)).cos().sum()) / noise(recipe).numel() ** 0.5


def bowl(recipe: Recipe) -> float:
    """How near the first four dimensions are to a point: soon only small steps gain."""
    return -float((noise(recipe).flatten()[:4] - 1).norm())


def downhill(recipe: Recipe) -> float:
    """White noise of the fresh noise, and every step away from it is a loss."""
    return rugged(recipe.noise.prefix(0)) - len(recipe.noise.ops)


def finished(name: str, score: Score, seed: int, candidates: int = CANDIDATES, **options: object) -> SearchRun:
    """A search driven to its end; a candidate takes 10 NFE."""
    run = start(request(name, nfe=candidates * 10, seed=seed, search={"algorithm": name, **options}))
    while proposals := run.ask():
        run.tell(evaluate(proposals, score=score))
    return run


def bests(name: str, score: Score, candidates: int = CANDIDATES, **options: object) -> list[float]:
    """The best score of each of `SEEDS` searches with the same NFE."""
    runs = (finished(name, score, seed, candidates, **options) for seed in range(SEEDS))
    return [run.result().images[0].score for run in runs]


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def gain(ours: list[float], others: list[float]) -> float:
    """By how many of the standard errors, added up, the first are better."""
    return (statistics.fmean(ours) - statistics.fmean(others)) / (standard_error(ours) + standard_error(others))


@WALKS
@pytest.mark.parametrize("score", [smooth, wavy, bowl])
def test_where_neighbours_are_alike_a_walk_beats_random_search(name: str, score: Score) -> None:
    assert gain(bests(name, score), bests("random", score)) > 4


def test_so_does_the_walk_of_the_paper() -> None:
    assert gain(bests("zero_order", smooth, preset="paper"), bests("random", smooth)) > 4


@WALKS
def test_where_they_are_not_it_is_random_search(name: str) -> None:
    """Every candidate is one more independent draw, wherever it lies."""
    assert abs(gain(bests(name, rugged), bests("random", rugged))) < 2


@pytest.mark.parametrize(("name", "candidates"), [("zero_order", 64), ("trust_region", 80)])
def test_where_every_step_is_a_loss_it_still_finds_what_its_fresh_share_does(name: str, candidates: int) -> None:
    """A quarter or a fifth of the candidates: here the 16 noises that a random search draws first."""
    assert bests(name, downhill, candidates) == bests("random", downhill, 16)


def test_steps_that_adapt_come_closer_to_a_top_than_fixed_ones() -> None:
    adaptive, fixed = (bests("zero_order", bowl, 160, neighbors=4, step=step) for step in ("adaptive", "fixed"))
    assert gain(adaptive, fixed) > 3


def test_regions_shrink_where_small_steps_gain_and_grow_where_large_ones_do() -> None:
    """In 100 candidates; the mean of the first region's size at the end."""

    def size(score: Score) -> float:
        search, found = ALGORITHMS["trust_region"], []
        for seed in range(SEEDS):
            state = first_state(request("trust_region", nfe=1000, seed=seed))
            while proposals := search.ask(state):
                state = search.tell(state, proposals, evaluate(proposals, score=score))
            assert isinstance(state, TrustRegionState)
            found.append(state.regions[0].radius)
        return statistics.fmean(found)

    assert size(bowl) < 0.4 < size(smooth)


@pytest.mark.parametrize("cosine", [0.99, 0.95, 0.5, -0.5])
def test_a_neighbour_has_the_norm_of_its_pivot_and_lies_at_the_stated_distance(cosine: float) -> None:
    pivot = gaussian(1, 0, 0, (3, 32, 32)).double()
    other = neighbor(gaussian(1, 0, 0, (3, 32, 32)), cosine, 1, 2, 3).double()
    assert float(other.norm() / pivot.norm()) == pytest.approx(1, abs=1e-5)
    assert float((other - pivot).norm() / pivot.norm()) == pytest.approx((2 - 2 * cosine) ** 0.5, rel=1e-5)


def test_neighbours_lie_in_every_direction_alike() -> None:
    pivot = gaussian(1, 0, 0, (3, 32, 32))
    away = torch.stack([neighbor(pivot, 0.9, 1, 1, index) - 0.9 * pivot for index in range(64)]).flatten(1)
    unit = away / away.norm(dim=1, keepdim=True)
    between = (unit @ unit.T)[~torch.eye(64, dtype=torch.bool)]
    assert between.mean().abs() < 1e-3 and between.abs().max() < 6 / unit.shape[1] ** 0.5
