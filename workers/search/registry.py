"""Which search algorithms there are: one line each."""

from __future__ import annotations

from typing import Any

from workers.jobs.schemas import AlgorithmOffer
from workers.search.base import Search
from workers.search.epsilon_greedy import EpsilonGreedy
from workers.search.evolutionary import EvoSearch
from workers.search.fk_steering import FkSteering
from workers.search.paths import PathSearch
from workers.search.random_search import RandomSearch
from workers.search.rollover import Rollover
from workers.search.tree import TreeSearch
from workers.search.zero_order import ZeroOrderSearch

#: Every algorithm by name. Adding one is a file beside these and a line here.
ALGORITHMS: dict[str, Search[Any]] = {
    search.name: search
    for search in (
        RandomSearch(),
        ZeroOrderSearch(),
        PathSearch(),
        EpsilonGreedy(),
        EvoSearch(),
        FkSteering(),
        Rollover(),
        TreeSearch(),
    )
}


def algorithm_offers() -> tuple[AlgorithmOffer, ...]:
    """Every registered algorithm with the schema of its options."""
    return tuple(
        AlgorithmOffer(
            name=search.name,
            title=search.title,
            reference=search.reference,
            stochastic=search.stochastic,
            options_schema=search.Options.model_json_schema(),
        )
        for search in ALGORITHMS.values()
    )
