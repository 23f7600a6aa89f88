"""Diffusion tree search."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.algorithms.tree import (
    Place,
    Rollout,
    Tree,
    TreeOptions,
    TreeState,
    Widths,
    branching_steps,
)
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
    search = {"algorithm": "tree_search", "batch": 1, "widening": 1.0}
    for state in states(request("tree_search", nfe=2000, search=search, **STEPS)):
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
    search = {"algorithm": "tree_search", "batch": 4, "widening": 1.0}
    proposals = SEARCH.ask(states(request("tree_search", nfe=1000, search=search, **STEPS))[1])
    assert len(proposals) == 4 and len({p.recipe.noise for p in proposals}) > 1


def test_it_goes_on_where_the_start_noise_is_good() -> None:
    """The score is that of the start noise: the best of them gets the most visits, under either selection."""
    for selection in ("greedy", "boltzmann"):
        search = {"algorithm": "tree_search", "selection": selection, "lam": 5.0, "widening": 1.0, "batch": 4}
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


def test_the_root_has_as_many_children_as_the_budget_says_and_the_plan_with_it() -> None:
    for nfe, rollouts in ((80, 8), (160, 16), (360, 36), (2000, 200)):
        asked = request("tree_search", nfe=nfe, search={"algorithm": "tree_search", "batch": 1}, **STEPS)
        found = states(asked)
        c = SEARCH.chosen(found[0].allowance, TreeOptions(batch=1))["widening"]
        assert c * math.sqrt(rollouts) == pytest.approx(min(rollouts / 2, 2 * math.sqrt(rollouts)))
        last = found[-1]
        assert isinstance(last, TreeState) and len(last.rollouts) > rollouts
        roots = sum(rollout.parent is None for rollout in last.rollouts)
        assert roots == pytest.approx(c * math.sqrt(len(last.rollouts)), abs=1)


def test_the_batch_is_an_eighth_of_the_rollouts_within_bounds() -> None:
    for nfe, batch in ((80, 1), (240, 3), (1280, 16), (9000, 16)):
        state = first_state(request("tree_search", nfe=nfe, **STEPS))
        assert SEARCH.chosen(state.allowance, TreeOptions())["batch"] == batch == len(SEARCH.ask(state))
    assert SEARCH.chosen(state.allowance, TreeOptions(batch=2, widening=1.0)) == {}


def test_where_a_leaf_does_not_fit_a_deeper_one_that_does_is_rolled_out() -> None:
    """The cheapest rollout takes the two last steps of ten."""
    for nfe in (95, 316, 999):
        last = states(request("tree_search", nfe=nfe, **STEPS))[-1]
        assert last.left < 2


def test_at_the_end_it_goes_down_to_the_first_level_that_still_fits() -> None:
    tree = Tree([rollout(1.0), rollout(0.0)], depth=3, lam=1.0)
    wide = Widths(root=9.0, within=9.0, batch=1)
    assert tree.select(TreeOptions(), wide, 0, 0, 0) is None
    assert [tree.select(TreeOptions(), wide, 0, 0, 0, least) for least in range(3)] == [Place(0, n) for n in range(3)]
