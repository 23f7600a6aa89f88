"""Feynman-Kac steering: particles that are resampled by what their data predictions score.

Singhal et al. 2025, arXiv 2501.06848. A particle's potential G at resampling point k follows from the score r of its
data prediction and from its own past:

    difference  G = exp(lam_k r - lam_(k-1) r_prev)
    max         G = exp(lam_k max of r so far)
    sum         G = exp(lam_k sum of r so far)

and at the end G = exp(lam r_final) / product of its potentials, so that the weighted particles are samples of
p(x) exp(lam r(x)) whatever the potentials were. Where the authors' code (zacharyhorvitz/Fk-Diffusion-Steering) differs,
the paper is followed: the code starts `max` at 0, which makes all scores below 0 equal, ends it with the largest score
on the way instead of the final one, and drops the weights of a point at which it does not resample. All weights are
logarithms.

The paper's lambda is one number for a verifier of known scale. Four things are done otherwise by default or on request:

- lambda is given per standard deviation of the scores: lam_k = lam / sd_k, sd_k that of all scores seen at point k so
  far in the search, those of this pass included; so a pass of few particles has more to go by. Where it is 0 the point
  is left out (G = 1). The final lambda is per standard deviation of the finished particles' scores; the weights are
  divided by the potentials that were really used, so that they hold for it, in the sense of adaptive sequential Monte
  Carlo: in the limit of many particles.
- `temperature: "rising"` multiplies lam_k by the time t of point k, as an early data prediction tells less: so do Zhang
  et al. 2025, arXiv 2505.23614, whose code follows alpha_t / alpha_(t-1), and Su et al. 2025, arXiv 2508.12361.
- Resampling is systematic or by Srinivasan's sampling process, of less variance than the paper's multinomial one.
- `funnel` lets fewer particles go on from every point (Su et al. 2025): more starts for the same NFE.

The scaling axis is k, the number of particles: by default as many as the whole budget buys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import softmax, ssp, systematic, uniform
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling

Potential = Literal["max", "difference", "sum"]
Resampling = Literal["systematic", "ssp"]

#: Most particles of a pass.
MOST = 1024
#: Standard deviations below this fraction of the mean are rounding: a spread of 0.
ROUNDING = 1e-12


class FkOptions(base.Options):
    """Options of Feynman-Kac steering, in the paper's words."""

    particles: int | None = Field(
        None, ge=2, le=MOST, description="k, the particles of a pass; none: as many as the budget buys (paper: 4)"
    )
    lam: float = Field(4.0, ge=0, le=1e6, description="lambda, by which scores are multiplied in the exponent")
    lam_units: Literal["sd", "raw"] = Field(
        "sd", description="lambda is per standard deviation of the scores at a point, or of the scores as they are"
    )
    temperature: Literal["constant", "rising"] = Field(
        "constant", description="rising: lambda is multiplied by the time t of the resampling point"
    )
    potential: Potential = Field("max", description="how a particle's score and past become its weight")
    resampling: Resampling = Field("ssp", description="systematic, or by Srinivasan's sampling process")
    resample_from: float = Field(0.2, ge=0, le=1, description="first resampling point, as a fraction of the steps")
    resample_to: float = Field(0.8, ge=0, le=1, description="last resampling point")
    resample_every: float = Field(0.2, gt=0, le=1, description="distance between resampling points")
    resample_at: tuple[float, ...] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="the resampling points one by one, as ascending fractions of the steps, in place of those three",
    )
    funnel: float = Field(0.5, gt=0, le=1, description="fraction of the particles that goes on from a resampling point")
    adaptive: bool = Field(
        False, description="resample only when the effective sample size is below k/2, or fewer are to go on"
    )

    @model_validator(mode="after")
    def _ascending(self) -> FkOptions:
        points = self.resample_at
        if points and (list(points) != sorted(set(points)) or any(not 0 < point < 1 for point in points)):
            raise ValueError("`resample_at` must ascend between 0 and 1")
        return self


class Particle(Schema):
    """One particle at a resampling point.

    Attributes:
        recipe: of its state there.
        log_weight: logarithm of its weight since it was last resampled.
        log_product: logarithm of the product of all potentials of its line so far.
        memory: what its potential remembers of the scores so far: their maximum, or their sum.
    """

    recipe: Recipe
    log_weight: float = 0.0
    log_product: float = 0.0
    memory: float | None = None


class Spread(Schema):
    """How some scores spread, as a running sum (Welford 1962).

    Attributes:
        count, mean: of the scores.
        squares: sum of their squared distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def seeing(self, scores: Sequence[float]) -> Spread:
        """With these scores as well."""
        count, mean, squares = self.count, self.mean, self.squares
        for score in scores:
            count, before = count + 1, score - mean
            mean += before / count
            squares += before * (score - mean)
        return Spread(count=count, mean=mean, squares=squares)

    @property
    def sd(self) -> float:
        """Their standard deviation; 0 of fewer than two, and where there is nothing but rounding."""
        sd = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return sd if sd > ROUNDING * max(abs(self.mean), ROUNDING) else 0.0


class FkState(PassState):
    """A pass under way.

    Attributes:
        particles: as they go into the next segment; empty between passes.
        weights: of the finished particles of the last pass, normalised: drawn by them, they are samples of
            p(x) exp(lam r(x)), lam per standard deviation of the finished particles' scores if so asked. The best of
            all candidates needs them not.
        spreads: of all scores seen at each resampling point so far, and at the end.
    """

    options: FkOptions
    particles: tuple[Particle, ...] = ()
    weights: tuple[float, ...] = ()
    spreads: tuple[Spread, ...] = ()


class FkSteering:
    """k particles, resampled by their potentials; every finished particle is a candidate."""

    name: ClassVar[str] = "fk_steering"
    title: ClassVar[str] = "Feynman-Kac particle steering"
    reference: ClassVar[str] = "Singhal et al. 2025, arXiv 2501.06848"
    stochastic: ClassVar[bool] = True
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {
        "particles": 4,
        "lam": 10.0,
        "lam_units": "raw",
        "potential": "max",
        "resample_from": 0.2,
        "resample_to": 0.8,
        "resample_every": 0.2,
        "funnel": 1.0,
    }
    Options: ClassVar[type[base.Options]] = FkOptions
    State: ClassVar[type[base.State]] = FkState

    def chosen(self, allowance: base.Allowance, options: FkOptions) -> Mapping[str, Any]:
        """The particles of the first pass; of a funnel, how many go into each of its segments."""
        state = self.init(allowance, options)
        counts = _pass_counts(state, resampling_points(options, allowance.sampling))
        if not counts:
            return {}
        opened = {} if options.particles is not None else {"particles": counts[0]}
        return opened if options.funnel == 1 else {**opened, "funnel_counts": counts}

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
        if not (counts := _pass_counts(state, points)):
            return state.plain()
        return tuple(
            state.propose(index, state.fresh(index).then(_segment(state, points, 0, index)))
            for index in range(counts[0])
        )

    def tell(self, state: FkState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> FkState:
        """Weigh the particles by their scores, and resample them."""
        base.check_told(proposals, candidates)
        if not state.particles and proposals and proposals[0].recipe.finished:
            return advance_pass(state, proposals, candidates)  # plain trajectories
        options, scores = state.options, [base.score_of(candidate) for candidate in candidates]
        started = state.particles or tuple(Particle(recipe=p.recipe) for p in proposals)
        points = resampling_points(options, state.sampling)
        place = len(proposals[0].recipe.ops) - 1
        spreads = list(state.spreads or (Spread() for _ in range(len(points) + 1)))
        spreads[place] = spreads[place].seeing(scores)
        lam = _lam(options, proposals[0].recipe.time, spreads[place])
        if place == len(points):
            logs = [p.log_weight + lam * r - p.log_product for p, r in zip(started, scores, strict=True)]
            changes = {"particles": (), "weights": softmax(logs), "spreads": tuple(spreads)}
            return advance_pass(state, proposals, candidates, **changes)
        weighed = []
        for particle, proposal, score in zip(started, proposals, scores, strict=True):
            particle = weigh(particle, options.potential, lam, score)
            weighed.append(particle.model_copy(update={"recipe": proposal.recipe}))
        resampled = resample(
            weighed,
            [uniform(state.allowance.seed, state.round, index) for index in range(len(weighed))],
            scheme=options.resampling,
            count=_going_on(len(weighed), options.funnel),
            adaptive=options.adaptive,
        )
        return advance_pass(state, proposals, candidates, particles=resampled, spreads=tuple(spreads))


def resampling_points(options: FkOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps after which particles are resampled, ascending.

    None lies within the last step, which adds no noise: copies would end in the same image.
    """
    fractions = options.resample_at
    if fractions is None:
        count = int((options.resample_to - options.resample_from) / options.resample_every + 1e-9) + 1
        fractions = tuple(options.resample_from + i * options.resample_every for i in range(count))
    steps = {round(fraction * sampling.steps) for fraction in fractions}
    return tuple(sorted(step for step in steps if 1 <= step <= sampling.steps - 2))


def weigh(particle: Particle, kind: Potential, lam: float, score: float) -> Particle:
    """The particle, weighted by its potential at a point where its data prediction scores `score`.

    Args:
        particle: from the point before.
        kind: of the potential.
        lam: lam_k; 0 leaves the point out, for it says nothing.
        score: r.
    """
    past = particle.memory
    if kind == "difference":
        memory = score
    elif kind == "sum":
        memory = score + (past or 0.0)
    else:
        memory = score if past is None else max(score, past)
    log_potential = lam * memory
    if kind == "difference":
        log_potential -= particle.log_product  # which is lam_(k-1) r_prev: the product telescopes
    if lam == 0:
        log_potential = 0.0
    return particle.model_copy(
        update={
            "log_weight": particle.log_weight + log_potential,
            "log_product": particle.log_product + log_potential,
            "memory": memory,
        }
    )


def resample(
    particles: Sequence[Particle], uniforms: Sequence[float], *, scheme: Resampling, count: int, adaptive: bool
) -> tuple[Particle, ...]:
    """`count` particles, drawn by their weights, which are used up thereby.

    Where as many go on as there are, equal weights keep every particle; and so does `adaptive`, with its weight, if the
    effective sample size 1 / sum w^2 is at least half their number.

    Args:
        particles: weighted.
        uniforms: as many numbers in [0, 1), which decide.
        scheme: of `draws`.
        count: how many go on, at most as many as there are.
        adaptive: see above.
    """
    logs = [particle.log_weight for particle in particles]
    weights = softmax(logs)
    if count == len(particles):
        even = adaptive and 1 / sum(weight**2 for weight in weights) >= count / 2
        if even or min(logs) == max(logs):
            return tuple(particles)
    drawn = systematic(weights, uniforms[0], count) if scheme == "systematic" else ssp(weights, uniforms[1:], count)
    return tuple(particles[index].model_copy(update={"log_weight": 0.0}) for index in drawn)


def _lam(options: FkOptions, t: float, spread: Spread) -> float:
    """lam_k at time `t`, where the scores spread so; 0 where they do not."""
    lam = options.lam * (t if options.temperature == "rising" else 1.0)
    if options.lam_units == "raw":
        return lam
    return lam / spread.sd if spread.sd else 0.0


def _going_on(count: int, funnel: float) -> int:
    """How many of `count` particles go on from a resampling point."""
    return max(1, round(count * funnel))


def _segment(state: FkState, points: Sequence[int], done: int, index: int) -> Integrate:
    """Particle `index`'s integration number `done`: to the next resampling point, or to the end."""
    sampling = state.sampling
    start = points[done - 1] if done else 0
    end = points[done] if done < len(points) else sampling.steps
    return sampling.integrate(sampling.time(end), end - start, round=state.round, index=index)


def _pass_counts(state: FkState, points: Sequence[int]) -> tuple[int, ...]:
    """Particles that go into each segment of the next pass; none if not two fit."""
    if not points:
        return ()
    recipe, costs = state.fresh(0), []
    for done in range(len(points) + 1):
        recipe = recipe.then(_segment(state, points, done, 0))
        costs.append(state.sampling.cost(recipe, done, evaluated=done > 0))
    for particles in range(state.options.particles or min(MOST, state.left // costs[0]), 1, -1):
        counts = [particles]
        for _ in points:
            counts.append(_going_on(counts[-1], state.options.funnel))
        if sum(map(int.__mul__, counts, costs)) <= state.room(counts[-1]):
            return tuple(counts)
    return ()
