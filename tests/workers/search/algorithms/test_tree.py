"""Diffusion tree search."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.algorithms.tree import Place, Rollout, Tree, TreeOptions, TreeState, branching_steps
from sitsearch.workers.search.base import Scored
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.algorithms.brownian import gain, gauss
from tests.workers.search.toy import evaluate, first_state, request, states

SEARCH = ALGORITHMS["tree_search"]
STEPS = {"sampler": {"steps": 10}}


def rollout(score: float, parent: int | None = None, level: int = -1) -> Rollout:
    """A leaf of a tree made by hand."""
    return Rollout(parent=parent, level=level, leaf=Scored(recipe=Recipe(seed=0, round=0, index=0), score=score))


def test_values_follow_the_soft_bellman_equation() -> None:
    """Two levels: root - a0 - a1 - {leaf 0, leaf 1} and root - b0 - b1 - leaf 2; scores of deviation 1, lambda 2."""
    one, two, three = (s * math.sqrt(3 / 2) for s in (1, 2, 3))
    tree = Tree([rollout(one), rollout(two, parent=0, level=1), rollout(three)], depth=2, lam=2.0)
    first = math.log((math.exp(2 * one) + math.exp(2 * two)) / 2) / 2
    assert tree.values[tree.number(Place(0, 1))] == pytest.approx(first)
    assert tree.values[tree.number(Place(0, 0))] == pytest.approx(first)
    assert tree.values[tree.number(Place(2, 0))] == pytest.approx(three)
    assert tree.values[0] == pytest.approx(math.log((math.exp(2 * first) + math.exp(2 * three)) / 2) / 2)


def test_visits_count_the_leaves_below() -> None:
    tree = Tree([rollout(0.0), rollout(1.0, parent=0, level=1), rollout(2.0, parent=0, level=0)], depth=2, lam=1.0)
    assert [tree.visits[tree.number(place)] for place in (None, Place(0, 0), Place(0, 1), Place(2, 1))] == [3, 3, 2, 1]


def test_the_root_has_as_many_children_as_progressive_widening_allows() -> None:
    for state in states(request("tree_search", nfe=2000, search={"algorithm": "tree_search", "batch": 1}, **STEPS)):
        assert isinstance(state, TreeState)
        visits = len(state.rollouts)
        children = sum(r.parent is None for r in state.rollouts)
        assert children <= math.ceil(max(1, visits) ** 0.5)


def test_a_rollout_costs_what_lies_below_the_state_that_it_starts_from() -> None:
    costs = Counter(p.nfe for s in states(request("tree_search", nfe=2000, **STEPS)) for p in SEARCH.ask(s))
    assert set(costs) == {2, 4, 6, 8, 10}


def test_children_of_a_state_have_noises_of_their_own() -> None:
    proposals = [p for s in states(request("tree_search", nfe=1000, **STEPS)) for p in SEARCH.ask(s)]
    ops = {op for p in proposals for op in p.recipe.ops if isinstance(op, Integrate)}
    assert len({(op.round, op.index) for op in ops}) == len(ops)


def test_a_batch_of_leaves_is_spread_by_counting_those_under_way_as_visits() -> None:
    proposals = SEARCH.ask(states(request("tree_search", nfe=1000, **STEPS))[1])
    assert len(proposals) == 4 and len({p.recipe.noise for p in proposals}) > 1


def test_it_goes_on_where_the_start_noise_is_good() -> None:
    """The score is that of the start noise: the best of them gets the most visits, under either selection."""
    for selection in ("greedy", "boltzmann"):
        search = {"algorithm": "tree_search", "selection": selection, "lam": 5.0}
        state = first_state(request("tree_search", nfe=1500, search=search, **STEPS))
        worth = {}
        visits: Counter[Recipe] = Counter()
        while proposals := SEARCH.ask(state):
            for p in proposals:
                visits[p.recipe.noise] += 1
                worth[p.recipe.noise] = gauss("worth", p.recipe.round, p.recipe.index)
            told = evaluate(proposals, score=lambda r: gauss("worth", r.round, r.index))
            state = SEARCH.tell(state, SEARCH.ask(state), told)
        assert max(visits, key=visits.__getitem__) == max(worth, key=worth.__getitem__)


def test_a_full_tree_is_followed_by_another() -> None:
    search = {"algorithm": "tree_search", "tree_size": 10}
    sizes = [
        len(s.rollouts) for s in states(request("tree_search", nfe=400, search=search)) if isinstance(s, TreeState)
    ]
    assert max(sizes) < 10 and sizes.count(0) > 2


def test_levels_never_lie_before_the_last_step_whose_children_would_be_the_same() -> None:
    sampling = first_state(request("tree_search", **STEPS)).sampling
    assert branching_steps(TreeOptions(), sampling) == (0, 2, 4, 6, 8)
    assert branching_steps(TreeOptions(levels=(0.1, 0.12, 0.9)), sampling) == (1,)


def test_it_finds_better_than_random_search_where_states_pass_on_their_worth() -> None:
    assert gain("tree_search") > 3
