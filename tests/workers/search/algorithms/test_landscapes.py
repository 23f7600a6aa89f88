"""Zero-order search against random search where neighbours are alike, and where they are not, on real start noises."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sitsearch.models.noise import gaussian, neighbor
from sitsearch.workers.jobs.recipe import Neighbor, Recipe
from tests.workers.search.toy import evaluate, request, rugged, start

SHAPE = (1, 8, 8)
CANDIDATES, SEEDS = 64, 40
Score = Callable[[Recipe], float]


def noise(recipe: Recipe) -> Tensor:
    """The start noise that the engine would make of a recipe."""
    x = gaussian(recipe.seed, recipe.round, recipe.index, SHAPE)
    for op in recipe.noise.ops:
        assert isinstance(op, Neighbor)
        x = neighbor(x, op.cosine, recipe.seed, op.round, op.index)
    return x


def smooth(recipe: Recipe) -> float:
    """A linear function of the noise, of variance 1: neighbours score alike."""
    return float(noise(recipe).sum()) / noise(recipe).numel() ** 0.5


def bests(name: str, score: Score) -> list[float]:
    """The best score of each of `SEEDS` searches with the same NFE."""
    found = []
    for seed in range(SEEDS):
        run = start(request(name, nfe=CANDIDATES * 10, seed=seed))
        while proposals := run.ask():
            run.tell(evaluate(proposals, score=score))
        found.append(run.result().images[0].score)
    return found


def standard_error(values: list[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5


def test_on_a_smooth_landscape_zero_order_search_beats_random_search() -> None:
    walk, draws = bests("zero_order", smooth), bests("random", smooth)
    assert statistics.fmean(walk) > statistics.fmean(draws) + 5 * (standard_error(walk) + standard_error(draws))


def test_on_a_rugged_landscape_it_does_not() -> None:
    walk, draws = bests("zero_order", rugged), bests("random", rugged)
    difference = statistics.fmean(walk) - statistics.fmean(draws)
    assert abs(difference) < 2 * (standard_error(walk) + standard_error(draws))


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
