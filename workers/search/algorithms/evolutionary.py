"""Evolutionary search over start noises and intermediate states (EvoSearch).

He et al. 2025, arXiv 2505.17618 (tinnerhrhe/EvoSearch-codes). A population of trajectories is finished and scored. At
each time of the evolution schedule a generation is bred from the states that all trajectories so far had there, scored
by where they ended: the elites go on as they are, the other places go to mutated winners of tournaments,

    at t = 0    sqrt(1 - b^2) x + b eps, which is N(0, I) again,
    later       x + sigma_t eps, sigma_t being the noise that a step of the request's sampler adds there,

and every member is finished in turn, with noises of its own. An elite thus ends elsewhere than before, as in the
authors' code; its earlier end keeps its score. Also from the code, where the paper leaves it open: a tournament is
between 0.9 of the pool. The code's FLUX script applies the first mutation at step 5 of 50; here it is for t = 0 only,
where it keeps the distribution. Only final images are scored.

The scaling axis is the sizes of the populations: in the proportions of the authors' FLUX script, they are what the
budget buys. They end where passes stop gaining; what the budget has beyond that goes to further passes, all of them
equal. What the proportions leave of a pass goes to its first generation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

from pydantic import Field, model_validator

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Blend, Integrate, Op, Perturb, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import tournament, uniform
from sitsearch.workers.search.passes import NO_PASS, PassState, advance_pass, equal_part, least_plain
from sitsearch.workers.search.sampling import Sampling
from sitsearch.workers.search.step_noise import step_noise

#: Passes are capped near where they stop gaining: at a first generation of about so many.
FIRST_CAP = 42
#: Sizes of the first generation, of those between, and of the last one, in proportion: the authors' FLUX script.
FIRST, BETWEEN, LAST = 14, 7, 10
#: Elites of a generation, of its size, in the same script.
ELITES = 3 / 7


class EvoOptions(base.Options):
    """Options of EvoSearch; the schedule is that of the authors' SD 2.1 script."""

    schedule: tuple[float, ...] = Field(
        (0.0, 0.4, 0.6, 0.8),
        max_length=100,
        description="when generations are bred, as ascending fractions of the steps",
    )
    populations: tuple[int, ...] | None = Field(
        None,
        description="members of the first generation and of one for each time of the schedule; none: what the budget "
        "buys",
    )
    elites: int | None = Field(
        None, ge=0, le=256, description="best states of a generation that go on as they are; none: 3 of 7"
    )
    mutation: float = Field(0.2, gt=0, le=1, description="b, the mutation of start noises")
    tournament: float = Field(0.9, gt=0, le=1, description="share of the pool that competes to be a parent")

    @model_validator(mode="after")
    def _agree(self) -> EvoOptions:
        if self.populations is not None and len(self.populations) != len(self.schedule) + 1:
            raise ValueError(f"{len(self.schedule)} times need {len(self.schedule) + 1} `populations`")
        if any(not 2 <= size <= 1024 for size in self.populations or ()):
            raise ValueError("each of `populations` must be between 2 and 1024")
        if list(self.schedule) != sorted(set(self.schedule)) or any(not 0 <= time < 1 for time in self.schedule):
            raise ValueError("`schedule` must ascend within [0, 1)")
        return self


class EvoState(PassState):
    """A pass under way.

    Attributes:
        pool: all that were finished in this pass, in order; empty between passes.
        sizes: of the pass's generations that are yet to come.
    """

    options: EvoOptions
    pool: tuple[base.Scored, ...] = ()
    sizes: tuple[int, ...] = ()


class EvoSearch:
    """Generations of trajectories, bred at ever later times."""

    name: ClassVar[str] = "evo_search"
    title: ClassVar[str] = "Evolutionary search (EvoSearch)"
    reference: ClassVar[str] = "He et al. 2025, arXiv 2505.17618"
    stochastic: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {
        "schedule": (0.0, 0.4, 0.6, 0.8),
        "populations": (42, 26, 26, 26, 30),
        "elites": 5,
        "mutation": 0.2,
        "tournament": 0.9,
    }
    Options: ClassVar[type[base.Options]] = EvoOptions
    State: ClassVar[type[base.State]] = EvoState

    def chosen(self, allowance: base.Allowance, options: EvoOptions) -> Mapping[str, Any]:
        """The sizes of the first pass's generations, and the elites of those that are bred."""
        state = self.init(allowance, options)
        sizes = _plan(state, breeding_steps(options, state.sampling))
        found = {"populations": sizes, "elites": tuple(_elites(options, size) for size in sizes[1:])}
        open_ones = {name: value for name, value in found.items() if getattr(options, name) is None}
        return NO_PASS if open_ones and not sizes else open_ones

    def least(self, allowance: base.Allowance, options: EvoOptions) -> int:
        """As many plain trajectories as are wanted."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: EvoOptions) -> EvoState:
        """The state before the first pass."""
        return EvoState(allowance=allowance, options=options)

    def ask(self, state: EvoState) -> tuple[base.Proposal, ...]:
        """The next generation."""
        times = breeding_steps(state.options, state.sampling)
        if state.pool:
            return _bred(state, times)
        sizes = _plan(state, times)
        return (
            tuple(state.propose(i, state.fresh(i).then(*_finish(state, times, 0, i))) for i in range(sizes[0]))
            if sizes
            else state.plain()
        )

    def tell(self, state: EvoState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> EvoState:
        """Add the generation to the pool."""
        sizes = state.sizes if state.pool else _plan(state, breeding_steps(state.options, state.sampling))
        told = advance_pass(state, proposals, candidates, sizes=sizes[1:])
        members = (base.scored(c) for c in candidates)
        return told.model_copy(update={"pool": (*state.pool, *members) if told.sizes else ()})


def breeding_steps(options: EvoOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps before which a generation is bred, ascending.

    None lies before the last step, which adds no noise: elites would end as they did before.
    """
    steps = dict.fromkeys(round(time * sampling.steps) for time in options.schedule)
    return tuple(step for step in steps if step <= sampling.steps - 2)


def _plan(state: EvoState, times: Sequence[int]) -> tuple[int, ...]:
    """Sizes of the next pass's generations, in the proportions of `populations`; empty if not two members each fit."""
    options, sampling = state.options, state.sampling
    if not times:
        return ()
    ops = _finish(state, times, 0, 0)
    whole = Recipe(seed=0, round=0, index=0).then(*ops)
    after = {0: 0} | {step: i for i, step in enumerate((step for step in times if step), 1)}
    costs = [sampling.cost(whole), *(sampling.cost(whole, after[step]) for step in times)]
    # Where a schedule finer than the steps has lost times, there are as many generations fewer.
    given = options.populations or (FIRST, *[BETWEEN] * (len(options.schedule) - 1), LAST)
    given = given[: len(times) + 1]

    def sized(first: int) -> tuple[int, ...]:
        return tuple(max(2, round(size * first / given[0])) for size in given)

    def cost(sizes: Sequence[int]) -> int:
        return sum(size * each for size, each in zip(sizes, costs, strict=True))

    follows = options.populations is None
    share = equal_part(state.left, cost(sized(FIRST_CAP))) if follows else state.left
    for first in range(2 * FIRST_CAP if follows else given[0], 1, -1):
        sizes = sized(first)
        spare = min(share, state.room(sum(sizes))) - cost(sizes)
        if spare >= 0:
            return (sizes[0] + spare // costs[0] * follows, *sizes[1:])
    return ()


def _elites(options: EvoOptions, size: int) -> int:
    """Elites of a generation of this size, at most half of it."""
    return min(size // 2, round(ELITES * size) if options.elites is None else options.elites)


def _bred(state: EvoState, times: Sequence[int]) -> tuple[base.Proposal, ...]:
    """The generation that is bred at the next time of the schedule."""
    options, size = state.options, state.sizes[0]
    generation = len(times) - len(state.sizes)
    t = state.sampling.time(times[generation])
    ranked = sorted(state.pool, key=lambda member: -member.score)  # stable: the first of equals is ahead
    elites = _elites(options, size)
    proposals = []
    for index in range(size):
        place = index
        if index >= elites:
            competitors = max(1, round(options.tournament * len(ranked)))
            place = tournament(len(ranked), competitors, uniform(state.allowance.seed, state.round, index))
        parent = _state_at(ranked[place].recipe, t)
        known = len(parent.ops) if t else 0
        if index >= elites:
            parent = parent.then(_mutation(state, t, index))
        recipe = parent.then(*_finish(state, times, times[generation], index))
        proposals.append(state.propose(index, recipe, known=known))
    return tuple(proposals)


def _state_at(recipe: Recipe, t: float) -> Recipe:
    """The recipe of the state that a trajectory of the schedule had at time `t`."""
    if not t:
        return recipe.noise
    return recipe.prefix(next(i for i, op in enumerate(recipe.ops, 1) if isinstance(op, Integrate) and op.to == t))


def _mutation(state: EvoState, t: float, index: int) -> Op:
    """What makes a child of a parent's state at `t`; sigma_t is that of the step of the grid which begins there."""
    if not t:
        return Blend(round=state.round, index=index, strength=state.options.mutation)
    sampling = state.sampling
    to = next(time for time in map(sampling.time, range(sampling.steps + 1)) if time > t)
    return Perturb(round=state.round, index=index, scale=step_noise(sampling, t, to))


def _finish(state: EvoState, times: Sequence[int], start: int, index: int) -> tuple[Op, ...]:
    """From step `start` to the end, with a halt at each later time of the schedule, so that its states are at hand."""
    stops = [start, *(step for step in times if step > start), state.sampling.steps]
    return tuple(
        state.sampling.integrate(
            state.sampling.time(end),
            end - begin,
            round=state.round,
            index=index * len(stops) + place,  # no two integrations of a round share their noises
        )
        for place, (begin, end) in enumerate(pairwise(stops))
    )
