"""Which search algorithms there are: one line each, and those of installed plug-ins.

A plug-in is a Python package with an entry point in the group `sitsearch.algorithms`, `name = "module:Class"`; its
class follows the protocol of `sitsearch.workers.search.base.Search`, and `name` is also the class's own `name`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from sitsearch.workers.errors import PluginError
from sitsearch.workers.jobs.offer import AlgorithmOffer
from sitsearch.workers.jobs.request import SearchChoice
from sitsearch.workers.search.algorithms.auto import AutoSearch
from sitsearch.workers.search.algorithms.backtracking import Backtracking
from sitsearch.workers.search.algorithms.epsilon_greedy import EpsilonGreedy
from sitsearch.workers.search.algorithms.evolutionary import EvoSearch
from sitsearch.workers.search.algorithms.fk_steering import FkSteering
from sitsearch.workers.search.algorithms.lookahead import LookaheadSearch
from sitsearch.workers.search.algorithms.paths import PathSearch
from sitsearch.workers.search.algorithms.random_search import RandomSearch
from sitsearch.workers.search.algorithms.revisit import RevisitSearch
from sitsearch.workers.search.algorithms.rollover import Rollover
from sitsearch.workers.search.algorithms.successive_halving import SuccessiveHalving
from sitsearch.workers.search.algorithms.tree import TreeSearch
from sitsearch.workers.search.algorithms.trust_region import TrustRegionSearch
from sitsearch.workers.search.algorithms.zero_order import ZeroOrderSearch
from sitsearch.workers.search.base import Options, Search

GROUP = "sitsearch.algorithms"


def _with_plugins(built_in: Iterable[Search[Any]]) -> dict[str, Search[Any]]:
    """The built-in algorithms and those of installed plug-ins, by name.

    Raises:
        PluginError: a plug-in takes a name that is taken, or cannot be imported.
    """
    found = {search.name: search for search in built_in}
    for point in entry_points(group=GROUP):
        try:
            search: Search[Any] = point.load()()
        except (ImportError, AttributeError, TypeError) as error:
            raise PluginError(f"the algorithm {point.name!r} ({point.value}) cannot be loaded: {error}") from error
        if search.name != point.name or search.name in found:
            raise PluginError(f"{point.value!r} has the name {search.name!r}, not {point.name!r}, or it is taken")
        found[search.name] = search
    return found


#: Every algorithm by name. Adding one is a file beside these and a line here.
ALGORITHMS: dict[str, Search[Any]] = _with_plugins(
    (
        AutoSearch(),
        RandomSearch(),
        ZeroOrderSearch(),
        PathSearch(),
        Backtracking(),
        EpsilonGreedy(),
        EvoSearch(),
        FkSteering(),
        LookaheadSearch(),
        RevisitSearch(),
        Rollover(),
        SuccessiveHalving(),
        TreeSearch(),
        TrustRegionSearch(),
    )
)


def options_of(search: Search[Any], choice: SearchChoice) -> Options:
    """The options of a request's algorithm, with what its preset says of those left out.

    Raises:
        pydantic.ValidationError: an option is unknown or out of range.
    """
    preset = search.paper if choice.preset == "paper" else {}
    return search.Options.model_validate({**preset, **choice.options})


@cache
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
