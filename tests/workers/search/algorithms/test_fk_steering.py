"""Feynman-Kac steering."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import accumulate
from operator import mul
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.algorithms.fk_steering import (
    FkOptions,
    FkState,
    Particle,
    Potential,
    Spread,
    resample,
    resampling_points,
    weigh,
)
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain, score
from tests.workers.search.toy import evaluate, first_state, request, rugged, states

KINDS = pytest.mark.parametrize("kind", ["max", "difference", "sum"])
SCHEMES = pytest.mark.parametrize("scheme", ["systematic", "ssp"])
STEPS = {"sampler": {"steps": 10}}
#: As many particles to the end; what a funnel changes has tests of its own.
PLAIN = {"algorithm": "fk_steering", "lam": 2.0, "funnel": 1.0}


def first(**options: object) -> FkState:
    """The state before the first pass."""
    state = first_state(request("fk_steering", nfe=400, search=PLAIN | options, **STEPS))
    assert isinstance(state, FkState)
    return state


def particles(*log_weights: float) -> list[Particle]:
    """Particles of these weights."""
    return [
        Particle(recipe=Recipe(seed=0, round=0, index=i), log_weight=w, log_product=w, memory=None)
        for i, w in enumerate(log_weights)
    ]


def finish_pass(state: FkState, score: Callable[[Recipe], float] = rugged) -> tuple[FkState, list[Candidate]]:
    """The state after the first pass, and its finished candidates."""
    search = ALGORITHMS["fk_steering"]
    told: list[Candidate] = []
    while not state.weights:
        told = evaluate(search.ask(state), score=score)
        state = search.tell(state, search.ask(state), told)
    return state, told


def kept(*log_weights: float, u: float = 0.5, count: int | None = None, **options: Any) -> list[int]:
    """Which particles of these weights are kept."""
    options = {"scheme": "systematic", "adaptive": False} | options
    uniforms = [u] * len(log_weights)
    resampled = resample(particles(*log_weights), uniforms, count=count or len(log_weights), **options)
    return [particle.recipe.index for particle in resampled]


@KINDS
def test_the_potentials_of_a_line_multiply_to_the_tilted_target(kind: Potential) -> None:
    """With the last one, exp(lam r_final) / product so far, whatever the scores and lambdas on the way were."""
    particle = Particle(recipe=Recipe(seed=0, round=0, index=0))
    for lam, r in ((10.0, 0.3), (20.0, -0.5), (5.0, 0.9)):
        particle = weigh(particle, kind, lam, r)
    expected = {
        "max": 10 * 0.3 + 20 * 0.3 + 5 * 0.9,
        "difference": 5 * 0.9,
        "sum": 10 * 0.3 + 20 * -0.2 + 5 * 0.7,
    }
    assert particle.log_product == particle.log_weight == pytest.approx(expected[kind])


@KINDS
def test_a_point_without_a_lambda_is_left_out(kind: Potential) -> None:
    before = weigh(Particle(recipe=Recipe(seed=0, round=0, index=0)), kind, 2.0, 0.5)
    after = weigh(before, kind, 0.0, 0.7)
    assert (after.log_weight, after.log_product) == (before.log_weight, before.log_product)


def test_the_maximum_is_over_the_scores_alone() -> None:
    particle = weigh(Particle(recipe=Recipe(seed=0, round=0, index=0)), "max", 1.0, -5.0)
    assert (particle.log_weight, particle.memory) == (-5.0, -5.0)


@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=8), max_size=8))
def test_a_spread_is_the_standard_deviation_of_all_scores_seen(batches: list[list[float]]) -> None:
    spread, seen = Spread(), [score for batch in batches for score in batch]
    for batch in batches:
        spread = spread.seeing(batch)
    expected = statistics.stdev(seen) if len(seen) > 1 else 0.0
    assert spread.sd == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_scores_that_are_all_the_same_do_not_spread() -> None:
    assert Spread().seeing([0.1] * 7).sd == Spread().seeing([0.1]).sd == Spread().sd == 0


def test_lambda_in_standard_deviations_makes_the_scores_unit_and_origin_immaterial() -> None:
    one, other = (finish_pass(first(particles=8), lambda r, a=a: a * rugged(r) + 50) for a in (1.0, 1e-4))
    assert [c.recipe for c in one[1]] == [c.recipe for c in other[1]]
    assert one[0].weights == pytest.approx(other[0].weights)
    raw = [finish_pass(first(particles=8, lam_units="raw"), lambda r, a=a: a * rugged(r)) for a in (1.0, 1e-4)]
    assert raw[0][1] != raw[1][1]


def test_lambda_is_per_standard_deviation_of_all_scores_seen_at_a_point_in_the_search() -> None:
    search, state = ALGORITHMS["fk_steering"], first(particles=2, resample_at=[0.5], potential="difference")
    seen: list[float] = []
    for _ in range(3):
        told = evaluate(search.ask(state))
        seen += [candidate.scores["toy"] for candidate in told]
        state = search.tell(state, search.ask(state), told)
        ratio = 2.0 / statistics.stdev(seen)
        assert {round(p.log_product / ratio, 9) for p in state.particles} <= {round(score, 9) for score in seen[-2:]}
        state = search.tell(state, search.ask(state), evaluate(search.ask(state)))


def test_scores_without_a_spread_keep_every_particle() -> None:
    search, state = ALGORITHMS["fk_steering"], first(particles=4)
    proposals = search.ask(state)
    state = search.tell(state, proposals, evaluate(proposals, score=lambda _: 0.1))
    assert [particle.recipe for particle in state.particles] == [p.recipe for p in proposals]
    assert [particle.log_product for particle in state.particles] == [0.0] * 4


def test_a_rising_temperature_multiplies_lambda_by_the_time_of_the_point() -> None:
    search, products = ALGORITHMS["fk_steering"], []
    for temperature in ("constant", "rising"):
        state = first(particles=2, lam_units="raw", temperature=temperature, adaptive=True, lam=0.1)
        proposals = search.ask(state)
        state = search.tell(state, proposals, evaluate(proposals))
        products.append([particle.log_product for particle in state.particles])
    assert proposals[0].recipe.time == pytest.approx(0.2)
    assert products[1] == pytest.approx([0.2 * product for product in products[0]])


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
    search, state = ALGORITHMS["fk_steering"], first(particles=4, lam=10)
    told = evaluate(search.ask(state), score=lambda recipe: float(recipe.index == 2))
    proposals = search.ask(search.tell(state, search.ask(state), told))
    assert len(proposals) == 4
    assert {p.recipe.prefix(p.known) for p in proposals} == {told[2].recipe}
    assert len({p.recipe.ops[1] for p in proposals}) == 4
    assert all(p.evaluated and p.nfe == 2 for p in proposals)  # two steps and a preview, less the one that is known


@SCHEMES
def test_the_same_scores_keep_every_particle(scheme: str) -> None:
    assert kept(3.0, 3.0, 3.0, u=0.7, scheme=scheme) == [0, 1, 2]


@SCHEMES
def test_heavy_particles_are_copied_and_light_ones_dropped(scheme: str) -> None:
    assert kept(0.0, 9.0, 0.0, 9.0, scheme=scheme) == [1, 1, 3, 3]


@SCHEMES
def test_fewer_particles_are_drawn_by_the_same_weights(scheme: str) -> None:
    assert kept(0.0, 9.0, 0.0, 9.0, scheme=scheme, count=2) == [1, 3]
    assert kept(0.0, 0.1, 0.0, 9.0, scheme=scheme, count=1, adaptive=True) == [3]


def test_adaptive_resampling_carries_the_weights_of_a_point_that_it_leaves_out() -> None:
    even, uneven = particles(0.0, 0.1, -0.1, 0.0), particles(0.0, 9.0, 0.0, 0.0)
    assert resample(even, [0.5] * 4, scheme="ssp", count=4, adaptive=True) == tuple(even)
    resampled = resample(uneven, [0.5] * 4, scheme="ssp", count=4, adaptive=True)
    assert [p.recipe.index for p in resampled] == [1, 1, 1, 1]
    assert [p.log_weight for p in resampled] == [0.0] * 4 and [p.log_product for p in resampled] == [9.0] * 4


def test_adaptive_resampling_resamples_where_fewer_go_on() -> None:
    resampled = resample(particles(0.0, 0.1, -0.1, 0.0), [0.5] * 4, scheme="ssp", count=2, adaptive=True)
    assert [p.log_weight for p in resampled] == [0.0, 0.0]


@KINDS
@pytest.mark.parametrize("temperature", ["constant", "rising"])
@pytest.mark.parametrize("units", ["sd", "raw"])
def test_without_resampling_the_final_weights_are_those_of_the_final_scores_alone(
    kind: str, temperature: str, units: str
) -> None:
    """They are importance weights of plain samples then: exp(lam r), normalised."""
    options = {"potential": kind, "temperature": temperature, "lam_units": units}
    state, told = finish_pass(first(particles=4, lam=0.01, adaptive=True, **options))
    scores = [candidate.scores["toy"] for candidate in told]
    lam = 0.01 / (statistics.stdev(scores) if units == "sd" else 1)
    weights = [math.exp(lam * score) for score in scores]
    assert state.weights == pytest.approx([weight / sum(weights) for weight in weights])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"potential": "difference", "temperature": "rising", "resampling": "systematic"},
        {"potential": "sum", "funnel": 0.9, "lam": 0.1},
        {"adaptive": True, "funnel": 0.9},
    ],
)
def test_resampled_and_weighted_particles_are_samples_of_the_tilted_target(options: dict[str, Any]) -> None:
    """The score at the end is N(0, 1) before tilting by exp(lam r) and N(lam, 1) after, to what the weights allow."""
    asked = {"algorithm": "fk_steering", "particles": 300, "lam": 0.5, "lam_units": "raw", **options}
    means = []
    for seed in range(6):
        state = first_state(request("fk_steering", nfe=3000, seed=seed, search=asked, **STEPS))
        assert isinstance(state, FkState)
        state, told = finish_pass(state, lambda recipe: score(recipe) / 1.25**0.5)
        means.append(math.fsum(w * c.scores["toy"] for w, c in zip(state.weights, told, strict=True)))
    assert statistics.mean(means) == pytest.approx(asked["lam"], abs=0.1)


def test_a_pass_costs_no_more_than_as_many_plain_trajectories() -> None:
    state = states(request("fk_steering", nfe=40, search=PLAIN, **STEPS))[-1]
    assert state.finished == 4 and state.spent == 40


def test_a_budget_for_fewer_particles_gets_fewer_and_one_for_a_single_particle_a_plain_trajectory() -> None:
    search = ALGORITHMS["fk_steering"]
    assert len(search.ask(first_state(request("fk_steering", nfe=29, search=PLAIN, **STEPS)))) == 2
    (proposal,) = search.ask(first_state(request("fk_steering", nfe=19, search=PLAIN, **STEPS)))
    assert proposal.recipe.finished and len(proposal.recipe.ops) == 1


def test_by_default_one_pass_takes_the_whole_budget() -> None:
    search = ALGORITHMS["fk_steering"]
    for nfe in (40, 405, 4000):
        state = first_state(request("fk_steering", nfe=nfe, search=PLAIN, **STEPS))
        assert len(search.ask(state)) == nfe // state.sampling.whole
    asked = request("fk_steering", nfe=400, search={"algorithm": "fk_steering", "particles": 8}, **STEPS)
    assert len(search.ask(first_state(asked))) == 8, "as many as are named, pass after pass"


@pytest.mark.parametrize("funnel", [1.0, 0.7, 0.5, 0.01])
@pytest.mark.parametrize("nfe", [40, 123, 400])
def test_a_funnel_begins_with_more_particles_and_takes_no_more_than_the_budget(funnel: float, nfe: int) -> None:
    asked = request("fk_steering", nfe=nfe, search={"algorithm": "fk_steering", "funnel": funnel}, **STEPS)
    rounds = [ALGORITHMS["fk_steering"].ask(state) for state in states(asked)][:5]

    def stages(count: int) -> list[int]:
        return list(accumulate(range(4), lambda going, _: max(1, round(going * funnel)), initial=count))

    def cost(count: int) -> int:
        return sum(map(mul, stages(count), (3, 2, 2, 2, 1)))  # a preview is the first evaluation of what follows

    particles = len(rounds[0])
    assert [len(proposals) for proposals in rounds] == stages(particles)
    assert sum(p.nfe for proposals in rounds for p in proposals) == cost(particles) <= nfe < cost(particles + 1)


def test_what_a_plan_is_told_of_open_options() -> None:
    search = ALGORITHMS["fk_steering"]
    for options, expected in (
        ({}, {"particles": 40}),
        ({"particles": 8}, {}),
        ({"particles": 8, "funnel": 0.5}, {"funnel_counts": (8, 4, 2, 1, 1)}),
        ({"resample_at": [0.95]}, {}),
    ):
        state = first(**options)
        assert search.chosen(state.allowance, state.options) == expected
    state = first(funnel=0.5)
    counts = search.chosen(state.allowance, state.options)
    assert counts["particles"] == counts["funnel_counts"][0] == len(search.ask(state)) > 40


def test_resampling_points_may_be_named_one_by_one() -> None:
    assert resampling_points(FkOptions(resample_at=(0.3, 0.5)), first().sampling) == (3, 5)
    for wrong in [(0.5, 0.3), (0.5, 1.0), (0.5, 0.5)]:
        with pytest.raises(ValidationError, match="`resample_at` must ascend between 0 and 1"):
            FkOptions(resample_at=wrong)


def test_the_preset_of_the_paper_is_its_algorithm() -> None:
    asked = request("fk_steering", search={"algorithm": "fk_steering", "preset": "paper"}, **STEPS)
    options = first_state(asked).options
    assert (options.particles, options.lam, options.lam_units, options.potential) == (4, 10.0, "raw", "max")
    assert options.funnel == 1.0 and FkOptions().funnel < 1.0


@pytest.mark.parametrize("options", [{}, {"particles": None, "funnel": 0.7}, {"temperature": "rising"}])
def test_it_finds_better_than_random_search_where_previews_tell(options: dict[str, Any]) -> None:
    assert gain("fk_steering", **({"particles": 8, "funnel": 1.0} | options)) > 3
