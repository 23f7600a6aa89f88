"""Searches in passes give the budget to passes, not to the plain trajectories of what is left."""

from __future__ import annotations

import pytest

from tests.workers.search.algorithms.spending import spending

BUDGETS = [60, 90, 128, 200, 333, 480, 777, 960, 1100, 1500, 1920, 2500, 3840, 5000, 7680]


@pytest.mark.parametrize("name", ["rollover", "epsilon_greedy", "evo_search"])
@pytest.mark.parametrize("nfe", BUDGETS)
def test_four_fifths_of_a_budget_go_to_passes_wherever_one_fits(name: str, nfe: int) -> None:
    spent, plain = spending(name, nfe)
    assert sum(spent) + plain > nfe - 20
    assert not spent or sum(spent) >= 0.8 * nfe
    assert spent or (name == "evo_search" and nfe < 128)


@pytest.mark.parametrize("name", ["rollover", "epsilon_greedy", "evo_search"])
def test_images_that_are_wanted_besides_are_kept_aside_for_only_where_passes_do_not_make_them(name: str) -> None:
    spent, plain = spending(name, 7680, images=4)
    assert sum(spent) >= 0.9 * 7680 and plain <= 20
