"""Feynman-Kac steering."""

from __future__ import annotations

import math

import pytest

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.algorithms.fk_steering import (
    FkOptions,
    FkState,
    Particle,
    Potential,
    potential,
    resample,
    resampling_points,
)
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain
from tests.workers.search.toy import evaluate, first_state, request, states

KINDS = pytest.mark.parametrize("kind", ["max", "difference", "sum"])
STEPS = {"sampler": {"steps": 10}}


def first(**options: object) -> FkState:
    """The state before the first pass."""
    state = first_state(request("fk_steering", nfe=400, search={"algorithm": "fk_steering", **options}, **STEPS))
    assert isinstance(state, FkState)
    return state


def particles(*log_weights: float) -> list[Particle]:
    """Particles of these weights."""
    return [
        Particle(recipe=Recipe(seed=0, round=0, index=i), log_weight=w, log_product=w, memory=None)
        for i, w in enumerate(log_weights)
    ]


@KINDS
def test_the_potentials_of_a_line_multiply_to_the_tilted_target(kind: Potential) -> None:
    """With the last one, exp(lam r_final) / product so far, whatever the scores on the way were."""
    lam, memory, log_product = 10.0, None, 0.0
    for score in (0.3, -0.5, 0.9):
        log_potential, memory = potential(kind, lam, score, memory)
        log_product += log_potential
    expected = {"max": lam * (0.3 + 0.3 + 0.9), "difference": lam * 0.9, "sum": lam * (0.3 - 0.2 + 0.7)}
    assert log_product == pytest.approx(expected[kind])


def test_the_maximum_is_over_the_scores_alone() -> None:
    assert potential("max", 1.0, -5.0, None) == (-5.0, -5.0)


def test_by_default_particles_are_resampled_every_fifth_of_the_steps_from_a_fifth_to_four_fifths() -> None:
    sampling = first().sampling
    assert resampling_points(FkOptions(), sampling) == (2, 4, 6, 8)
    assert resampling_points(FkOptions(resample_from=0.5, resample_to=1.0, resample_every=0.1), sampling) == (
        5,
        6,
        7,
        8,
    )


def test_copies_of_a_particle_go_on_from_its_state_with_noises_of_their_own() -> None:
    search, state = ALGORITHMS["fk_steering"], first(particles=4)
    told = evaluate(search.ask(state), score=lambda recipe: float(recipe.index == 2))
    proposals = search.ask(search.tell(state, search.ask(state), told))
    assert len(proposals) == 4
    assert {p.recipe.prefix(p.known) for p in proposals} == {told[2].recipe}
    assert len({p.recipe.ops[1] for p in proposals}) == 4
    assert all(p.evaluated and p.nfe == 2 for p in proposals)  # two steps and a preview, less the one that is known


def test_the_same_scores_keep_every_particle() -> None:
    assert [p.recipe.index for p in resample(particles(3.0, 3.0, 3.0), 0.7, adaptive=False)] == [0, 1, 2]


def test_adaptive_resampling_carries_the_weights_of_a_point_that_it_leaves_out() -> None:
    even, uneven = particles(0.0, 0.1, -0.1, 0.0), particles(0.0, 9.0, 0.0, 0.0)
    assert resample(even, 0.5, adaptive=True) == tuple(even)
    resampled = resample(uneven, 0.5, adaptive=True)
    assert [p.recipe.index for p in resampled] == [1, 1, 1, 1]
    assert [p.log_weight for p in resampled] == [0.0] * 4 and [p.log_product for p in resampled] == [9.0] * 4


@KINDS
def test_without_resampling_the_final_weights_are_those_of_the_final_scores_alone(kind: str) -> None:
    """They are importance weights of plain samples then: exp(lam r), normalised."""
    search, state = ALGORITHMS["fk_steering"], first(particles=4, potential=kind, lam=0.01, adaptive=True)
    while not state.weights:
        told = evaluate(search.ask(state))
        state = search.tell(state, search.ask(state), told)
    weights = [math.exp(0.01 * c.scores["toy"]) for c in told]
    assert state.weights == pytest.approx([w / sum(weights) for w in weights])


def test_a_pass_costs_no_more_than_as_many_plain_trajectories() -> None:
    state = states(request("fk_steering", nfe=40, **STEPS))[-1]
    assert state.finished == 4 and state.spent == 40


def test_a_budget_for_fewer_particles_gets_fewer_and_one_for_a_single_particle_a_plain_trajectory() -> None:
    search = ALGORITHMS["fk_steering"]
    assert len(search.ask(first_state(request("fk_steering", nfe=29, **STEPS)))) == 2
    (proposal,) = search.ask(first_state(request("fk_steering", nfe=19, **STEPS)))
    assert proposal.recipe.finished and len(proposal.recipe.ops) == 1


def test_by_default_one_pass_takes_the_whole_budget() -> None:
    search = ALGORITHMS["fk_steering"]
    for nfe in (40, 405, 4000):
        state = first_state(request("fk_steering", nfe=nfe, **STEPS))
        assert len(search.ask(state)) == nfe // state.sampling.whole
    asked = request("fk_steering", nfe=400, search={"algorithm": "fk_steering", "particles": 8}, **STEPS)
    assert len(search.ask(first_state(asked))) == 8, "as many as are named, pass after pass"


def test_it_finds_better_than_random_search_where_previews_tell() -> None:
    assert gain("fk_steering", particles=8) > 3
