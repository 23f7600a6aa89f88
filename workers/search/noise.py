"""How much noise the steps of a search take where a request leaves it open, as measured.

A stochastic sampler has as much to say about a search as its algorithm: with too little noise the copies of a state
stay alike, with too much a few steps cannot take it out again. On `glyphs`, GLASS steps of one evaluation that keep 0.4
of the noise were best, or level with the best, for every algorithm, on prompts (20 steps) as on classes (6 steps). In
few steps Euler-Maruyama finds higher scores still, but leaves noise in the pictures, which CLIP does not mind and
people do. A request that names a method is sampled as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sitsearch.workers.search.base import Search

#: Fields of a request's sampler: GLASS steps of one evaluation.
GLASS: Mapping[str, Any] = {"method": "glass", "inner": 1, "rho": 0.4}


def noise_for(search: Search[Any]) -> Mapping[str, Any]:
    """The sampler's fields for the stochastic steps of a search; none if it takes none.

    A search that steers besides sampling by the request's method, `auto`, names no method for the request.
    """
    if search.name == "auto":
        return {name: value for name, value in GLASS.items() if name != "method"}
    return GLASS if search.stochastic else {}
