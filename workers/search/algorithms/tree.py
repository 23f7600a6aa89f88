"""Diffusion tree search: a tree of noisy states whose values are learnt from finished images.

Jain et al. 2025, arXiv 2506.20701 (DTS, and its greedy variant DTS*). The root's children are start noises; a state's
children are where the SDE may lead from it. Every iteration descends from the root to a state that may have another
child (progressive widening: as long as it has fewer than ceil(C N^alpha), N its visits), draws that child, rolls it out
to the end, all its states joining the tree, scores the image, and backs the score up by the soft Bellman equation

    V(x) = 1/lambda log of the mean over children y of exp(lambda V(y)).

DTS* descends to the child with the largest V + c sqrt(log N(parent) / N(child)); DTS draws it in proportion to
exp(lambda V), which samples p(x) exp(lambda r(x)) in the limit.

Departures: the tree branches at a few levels only, not at every step, so that a subtree gets enough visits to be told
from its neighbours. Values are in units of the standard deviation of the tree's scores, which lets one lambda and one c
serve every verifier (Schmoecker et al. 2025, arXiv 2510.21275, on scaling c so). And `batch` leaves are rolled out
together: one that is under way counts as a visit, but has no value yet.

The scaling axis is the number of rollouts; any number is a result. Only final images are scored. For n rollouts, as
many as the budget buys of whole ones, C is such that the root has

    C n^alpha = min(n / 2, 2 sqrt(n))

children: half of the rollouts are of fresh noise up to n = 16, a third at n = 36, and of more ever fewer. Within the
tree C is 1/2, so that it grows deep before it grows broad. Rollouts that start there cost less, and so are more than
these counts say.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.draws import choose, softmax, uniform
from sitsearch.workers.search.passes import PassState, advance_pass, least_plain
from sitsearch.workers.search.sampling import Sampling

#: Most leaves that the budget lets be rolled out together.
MOST_TOGETHER = 16
#: C of states within the tree, where the budget chooses: a state gets its second child at its fifth visit.
WITHIN = 0.5


class TreeOptions(base.Options):
    """Options of diffusion tree search, in the paper's words."""

    levels: tuple[float, ...] = Field(
        (0.0, 0.2, 0.4, 0.6, 0.8),
        min_length=1,
        description="where the tree branches, as ascending fractions of the steps",
    )
    selection: Literal["greedy", "boltzmann"] = Field("greedy", description="greedy is DTS*, boltzmann is DTS")
    lam: float = Field(2.0, gt=0, le=1e3, description="lambda, per standard deviation of the scores")
    exploration: float = Field(1.0, ge=0, le=1e3, description="c of DTS*, in standard deviations of the scores")
    widening: float | None = Field(
        None,
        gt=0,
        le=1e3,
        description="C of progressive widening; none: at the root what the budget buys, within the tree 1/2",
    )
    widening_power: float = Field(0.5, ge=0, le=1, description="alpha of progressive widening")
    batch: int | None = Field(
        None,
        ge=1,
        le=256,
        description="leaves rolled out together, the paper's algorithm is 1; none: an eighth of the rollouts, to 16",
    )
    tree_size: int = Field(1000, ge=1, le=10_000, description="rollouts after which another tree is begun")

    @model_validator(mode="after")
    def _ascending(self) -> TreeOptions:
        if list(self.levels) != sorted(set(self.levels)) or any(not 0 <= level < 1 for level in self.levels):
            raise ValueError("`levels` must ascend within [0, 1)")
        return self


class Rollout(Schema):
    """One leaf of the tree, with the chain of states that was drawn for it.

    Attributes:
        parent: the rollout that drew the state it starts from; None if it starts from noise of its own.
        level: of that state: 0 is the first of the levels; -1 without a parent.
        leaf: where it ended.
    """

    parent: int | None
    level: int
    leaf: base.Scored


class TreeState(PassState):
    """The tree, as the rollouts it consists of, in order."""

    options: TreeOptions
    rollouts: tuple[Rollout, ...] = ()


class TreeSearch:
    """Monte Carlo tree search over noisy states."""

    name: ClassVar[str] = "tree_search"
    title: ClassVar[str] = "Diffusion tree search (DTS*)"
    reference: ClassVar[str] = "Jain et al. 2025, arXiv 2506.20701"
    stochastic: ClassVar[bool] = True
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    #: The tree branches at every step of up to a hundred.
    paper: ClassVar[Mapping[str, Any]] = {"levels": tuple(step / 100 for step in range(100)), "batch": 1}
    Options: ClassVar[type[base.Options]] = TreeOptions
    State: ClassVar[type[base.State]] = TreeState

    def chosen(self, allowance: base.Allowance, options: TreeOptions) -> Mapping[str, Any]:
        """C of the root and the batch, for the rollouts that the budget buys."""
        widths = _widths(self.init(allowance, options))
        found = {"widening": widths.root, "batch": widths.batch}
        return {name: value for name, value in found.items() if getattr(options, name) is None}

    def least(self, allowance: base.Allowance, options: TreeOptions) -> int:
        """As many whole trajectories as are wanted; a rollout from within the tree costs less."""
        return least_plain(allowance)

    def init(self, allowance: base.Allowance, options: TreeOptions) -> TreeState:
        """The state before the first rollout."""
        return TreeState(allowance=allowance, options=options)

    def ask(self, state: TreeState) -> tuple[base.Proposal, ...]:
        """The next leaves, as many as fit."""
        return _batch(state)

    def tell(self, state: TreeState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> TreeState:
        """Add the leaves to the tree."""
        told = advance_pass(state, proposals, candidates)
        new = []
        for proposal, candidate in zip(proposals, candidates, strict=True):
            leaf = base.scored(candidate)
            parent, level = _place(state, proposal) or (None, -1)
            new.append(Rollout(parent=parent, level=level, leaf=leaf))
        rollouts = (*state.rollouts, *new)
        return told.model_copy(update={"rollouts": rollouts if len(rollouts) < state.options.tree_size else ()})


class Widths(NamedTuple):
    """How wide the tree is: C at the root and within, and how many leaves are rolled out together."""

    root: float
    within: float
    batch: int


class Place(NamedTuple):
    """A state of the tree: the rollout that drew it, and its level."""

    rollout: int
    level: int


class Tree:
    """The tree of some rollouts: visits, children and soft values of its states.

    A state is numbered `1 + rollout * (depth + 1) + level`, the root 0; so a child's number is above its parent's.

    Args:
        rollouts: of all leaves so far.
        depth: number of levels; the leaves lie on the level after the last.
        lam: lambda, per standard deviation of the scores.

    Attributes:
        visits: leaves below a state, those under way included.
        children: states that were drawn from a state, in order.
        values: V, in units of the standard deviation of the scores; None if all leaves below are under way.
    """

    def __init__(self, rollouts: Sequence[Rollout], depth: int, lam: float) -> None:
        self._depth = depth
        self._parents: list[int] = [-1]
        self.visits: list[int] = [0]
        self.children: list[list[int]] = [[]]
        self.values: list[float | None] = [None]
        unit = (statistics.pstdev(rollout.leaf.score for rollout in rollouts) if rollouts else 0.0) or 1.0
        for rollout in rollouts:
            leaf = self.add(None if rollout.parent is None else Place(rollout.parent, rollout.level))
            self.values[leaf] = rollout.leaf.score / unit
        for state in range(len(self.children) - 1, -1, -1):
            children = self.children[state]
            if len(children) == 1:  # most states: the equation gives the child's value
                self.values[state] = self.values[children[0]]
                continue
            below = [value for child in children if (value := self.values[child]) is not None]
            if below:
                top = max(below)
                mean = sum([math.exp(lam * (value - top)) for value in below]) / len(below)
                self.values[state] = top + math.log(mean) / lam

    def number(self, place: Place | None) -> int:
        """The number of a state; None is the root."""
        return 0 if place is None else 1 + place.rollout * (self._depth + 1) + place.level

    def add(self, place: Place | None) -> int:
        """Draw a child of `place` and roll it out; returns the leaf's number."""
        parent, first = self.number(place), len(self.children)
        # The levels above the branch are other rollouts' states: their numbers in this one stay empty.
        born = 0 if place is None else place.level + 1
        leaf = first + self._depth
        self.children[parent].append(first + born)
        self.children += [[] for _ in range(born)]
        self.children += [[state + 1] for state in range(first + born, leaf)]
        self.children.append([])
        self._parents += [-1] * born + [parent, *range(first + born, leaf)]
        self.visits += [0] * born + [1] * (self._depth + 1 - born)
        self.values += [None] * (self._depth + 1)
        while parent >= 0:
            self.visits[parent] += 1
            parent = self._parents[parent]
        return leaf

    def select(
        self, options: TreeOptions, widths: Widths, seed: int, round: int, index: int, least: int = -1
    ) -> Place | None:
        """The state to draw another child from: the first on the way down that may have one; None is the root.

        On the last level that is every state: its children are images, and to visit one again tells nothing.

        Args:
            options: of the search.
            widths: C of the root, and within the tree.
            seed, round, index: name the draws of Boltzmann selection.
            least: the first level whose states may be drawn from, -1 being the root's.
        """
        state = 0
        for level in range(self._depth):
            widening = widths.within if state else widths.root
            allowed = math.ceil(widening * max(1, self.visits[state]) ** options.widening_power)
            known = [(value, c) for c in self.children[state] if (value := self.values[c]) is not None]
            if (level > least and len(self.children[state]) < allowed) or not known:
                break
            if options.selection == "greedy":
                log, bonus = math.log(self.visits[state]), options.exploration
                bounds = [value + bonus * math.sqrt(log / self.visits[child]) for value, child in known]
                chosen = bounds.index(max(bounds))
            else:
                weights = softmax([options.lam * value for value, _ in known])
                chosen = choose(weights, uniform(seed, round, index * self._depth + level))
            state = known[chosen][1]
        return Place(*divmod(state - 1, self._depth + 1)) if state else None


def branching_steps(options: TreeOptions, sampling: Sampling) -> tuple[int, ...]:
    """Steps before which the tree branches, ascending.

    None lies before the last step, which adds no noise: all children of a state there would be the same.
    """
    steps = dict.fromkeys(round(level * sampling.steps) for level in options.levels)
    return tuple(step for step in steps if step <= sampling.steps - 2)


def _widths(state: TreeState) -> Widths:
    """The options that say so, with what the budget chooses of those that are open."""
    options, allowance = state.options, state.allowance
    rollouts = min(options.tree_size, max(1, allowance.nfe // allowance.sampling.whole))
    roots = min(rollouts / 2, 2 * math.sqrt(rollouts))
    return Widths(
        root=options.widening or roots / rollouts**options.widening_power,
        within=options.widening or WITHIN,
        batch=options.batch or min(MOST_TOGETHER, max(1, rollouts // 8)),
    )


def _batch(state: TreeState) -> tuple[base.Proposal, ...]:
    """The next leaves; where one from high up does not fit any more, one from deeper down that does."""
    options, widths, left = state.options, _widths(state), state.left
    steps = branching_steps(options, state.sampling)
    tree = Tree(state.rollouts, len(steps), options.lam)
    costs = _costs(state, steps)
    batch: list[base.Proposal] = []
    for index in range(widths.batch):
        least = next((level for level, cost in enumerate(costs, -1) if cost <= left), None)
        if least is None:
            break
        place = tree.select(options, widths, state.allowance.seed, state.round, index, least)
        level = -1 if place is None else place.level
        if level < least:
            break
        start = state.fresh(index) if place is None else _state_at(state, steps, place)
        proposal = state.propose(index, start.then(*_finish(state, steps, level, index)), known=len(start.ops))
        left -= proposal.nfe
        tree.add(place)
        batch.append(proposal)
    return tuple(batch)


def _costs(state: TreeState, steps: Sequence[int]) -> tuple[int, ...]:
    """NFE of a rollout from the root, and from a state of each level: the deeper, the less."""
    whole = state.fresh(0).then(*_finish(state, steps, -1, 0))
    known = (sum(step > 0 for step in steps[: level + 1]) for level in range(len(steps)))
    return (state.sampling.cost(whole), *(state.sampling.cost(whole, operations) for operations in known))


def _place(state: TreeState, proposal: base.Proposal) -> Place | None:
    """The state of the tree that a proposal starts from; None is the root."""
    start, steps = proposal.recipe.prefix(proposal.known), branching_steps(state.options, state.sampling)
    for number, rollout in enumerate(state.rollouts):  # the first that went through a state drew it
        if rollout.leaf.recipe.prefix(proposal.known) == start:
            return Place(number, proposal.known - (steps[0] > 0))
    return None


def _state_at(state: TreeState, steps: Sequence[int], place: Place) -> Recipe:
    """The recipe of a state of the tree: an operation for each level, but none for a level that is the start noise."""
    operations = sum(step > 0 for step in steps[: place.level + 1])
    return state.rollouts[place.rollout].leaf.recipe.prefix(operations)


def _finish(state: TreeState, steps: Sequence[int], level: int, index: int) -> tuple[Integrate, ...]:
    """From a state of `level` (-1: from start noise) to the end, with a halt at each later level."""
    start = steps[level] if level >= 0 else 0
    stops = [start, *(step for step in steps if step > start), state.sampling.steps]
    return tuple(
        state.sampling.integrate(
            state.sampling.time(end),
            end - begin,
            round=state.round,
            index=index * (len(steps) + 2) + place,  # no two integrations of a round share their noises
        )
        for place, (begin, end) in enumerate(pairwise(stops))
    )
