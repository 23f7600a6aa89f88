"""Feynman-Kac steering: particles that are resampled by what their data predictions score.

Singhal et al. 2025, arXiv 2501.06848. A particle's potential G at a resampling point follows from the score r of its
data prediction and from its own past:

    difference  G = exp(lam (r - r_prev))
    max         G = exp(lam max of r so far)
    sum         G = exp(lam sum of r so far)

and at the end G = exp(lam r_final) / product of its potentials, so that the weighted particles are samples of
p(x) exp(lam r(x)) whatever the potential. Where the authors' code (zacharyhorvitz/Fk-Diffusion-Steering) differs, the
paper is followed: the code starts `max` at 0, which makes all scores below 0 equal, ends it with the largest score on
the way instead of the final one, and drops the weights of a point at which it does not resample. In place of
multinomial resampling stands systematic resampling, which has less variance. All weights are logarithms.

The scaling axis is k, the number of particles: by default as many as the whole budget buys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import softmax, systematic, uniform
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling

Potential = Literal["max", "difference", "sum"]


#: Most particles of a pass.
MOST = 1024


class FkOptions(base.Options):
    """Options of Feynman-Kac steering, in the paper's words."""

    particles: int | None = Field(
        None, ge=2, le=MOST, description="k, the particles of a pass; none: as many as the budget buys (paper: 4)"
    )
    lam: float = Field(10.0, ge=0, le=1e6, description="lambda, by which scores are multiplied in the exponent")
    potential: Potential = Field("max", description="how a particle's score and past become its weight")
    resample_from: float = Field(0.2, ge=0, le=1, description="first resampling point, as a fraction of the steps")
    resample_to: float = Field(0.8, ge=0, le=1, description="last resampling point")
    resample_every: float = Field(0.2, gt=0, le=1, description="distance between resampling points")
    adaptive: bool = Field(False, description="resample only when the effective sample size is below k/2")


class Particle(Schema):
    """One particle at a resampling point.

    Attributes:
        recipe: of its state there.
        log_weight: logarithm of its weight since it was last resampled.
        log_product: logarithm of the product of all potentials of its line so far.
        memory: what its potential remembers of the scores so far: the last, their maximum, or their sum.
    """

    recipe: Recipe
    log_weight: float
    log_product: float
    memory: float | None


class FkState(PassState):
    """A pass under way.

    Attributes:
        particles: as they go into the next segment; empty between passes.
        weights: of the finished particles of the last pass, normalised: drawn by them, they are samples of
            p(x) exp(lam r(x)). The best of all candidates needs them not.
    """

    options: FkOptions
    particles: tuple[Particle, ...] = ()
    weights: tuple[float, ...] = ()


class FkSteering:
    """k particles, resampled by their potentials; every finished particle is a candidate."""

    name: ClassVar[str] = "fk_steering"
    title: ClassVar[str] = "Feynman-Kac particle steering"
    reference: ClassVar[str] = "Singhal et al. 2025, arXiv 2501.06848"
    stochastic: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = FkOptions
    State: ClassVar[type[base.State]] = FkState

    def chosen(self, allowance: base.Allowance, options: FkOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: FkOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: FkOptions) -> FkState:
        """The state before the first pass."""
        return FkState(allowance=allowance, options=options)

    def ask(self, state: FkState) -> tuple[base.Proposal, ...]:
        """The particles' next segment; between passes, the first one of as many particles as fit."""
        points = resampling_points(state.options, state.sampling)
        if state.particles:
            done = len(state.particles[0].recipe.ops)
            return tuple(
                state.propose(
                    index,
                    particle.recipe.then(_segment(state, points, done, index)),
                    known=done,
                    evaluated=True,
                )
                for index, particle in enumerate(state.particles)
            )
        if (count := _pass_size(state, points)) < 2:
            return state.plain()
        return tuple(
            state.propose(index, state.fresh(index).then(_segment(state, points, 0, index))) for index in range(count)
        )

    def tell(self, state: FkState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> FkState:
        """Weigh the particles by their scores, and resample them."""
        base.check_told(proposals, candidates)
        started = state.particles or tuple(
            Particle(recipe=p.recipe, log_weight=0.0, log_product=0.0, memory=None) for p in proposals
        )
        options, scores = state.options, [base.score_of(candidate) for candidate in candidates]
        if proposals and proposals[0].recipe.finished:
            logs = [p.log_weight + options.lam * r - p.log_product for p, r in zip(started, scores, strict=True)]
            weights = softmax(logs) if state.particles else state.weights
            return advance_pass(state, proposals, candidates, particles=(), weights=weights)
        weighed = []
        for particle, proposal, score in zip(started, proposals, scores, strict=True):
            log_potential, memory = potential(options.potential, options.lam, score, particle.memory)
            weighed.append(
                Particle(
                    recipe=proposal.recipe,
                    log_weight=particle.log_weight + log_potential,
                    log_product=particle.log_product + log_potential,
                    memory=memory,
                )
            )
        u = uniform(state.allowance.seed, state.round, 0)
        resampled = resample(weighed, u, adaptive=options.adaptive)
        return advance_pass(state, proposals, candidates, particles=resampled)


def resampling_points(options: FkOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps after which particles are resampled, ascending.

    None lies within the last step, which adds no noise: copies would end in the same image.
    """
    count = int((options.resample_to - options.resample_from) / options.resample_every + 1e-9) + 1
    fractions = (options.resample_from + i * options.resample_every for i in range(count))
    steps = {round(fraction * sampling.steps) for fraction in fractions}
    return tuple(sorted(step for step in steps if 1 <= step <= sampling.steps - 2))


def potential(kind: Potential, lam: float, score: float, memory: float | None) -> tuple[float, float]:
    """The logarithm of a particle's potential, and what is remembered for the next one."""
    if kind == "difference":
        return lam * (score - (memory or 0.0)), score
    if kind == "sum":
        total = score + (memory or 0.0)
        return lam * total, total
    top = score if memory is None else max(score, memory)
    return lam * top, top


def resample(particles: Sequence[Particle], u: float, *, adaptive: bool) -> tuple[Particle, ...]:
    """As many particles, drawn by their weights, which are used up thereby; `u` in [0, 1) decides.

    If `adaptive`, only when the effective sample size 1 / sum w^2 is below half their number; else they keep their
    weights.
    """
    weights = softmax([particle.log_weight for particle in particles])
    if adaptive and 1 / sum(weight**2 for weight in weights) >= len(particles) / 2:
        return tuple(particles)
    return tuple(particles[i].model_copy(update={"log_weight": 0.0}) for i in systematic(weights, u))


def _segment(state: FkState, points: Sequence[int], done: int, index: int) -> Integrate:
    """Particle `index`'s integration number `done`: to the next resampling point, or to the end."""
    sampling = state.sampling
    start = points[done - 1] if done else 0
    end = points[done] if done < len(points) else sampling.steps
    return Integrate(to=sampling.time(end), steps=end - start, round=state.round, index=index)


def _pass_size(state: FkState, points: Sequence[int]) -> int:
    """Particles of the next pass; 0 if not two fit."""
    if not points:
        return 0
    recipe, unit = state.fresh(0), 0
    for done in range(len(points) + 1):
        recipe = recipe.then(_segment(state, points, done, 0))
        unit += state.sampling.cost(recipe, done, evaluated=done > 0)
    return next(
        (
            k
            for k in range(state.options.particles or min(MOST, state.left // unit), 1, -1)
            if k * unit <= state.room(k)
        ),
        0,
    )
