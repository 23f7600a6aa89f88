"""How much noise the steps of a search take where a request leaves it open: a table, as measured.

A stochastic sampler has as much to say about a search as its algorithm: with too little noise the copies of a state
stay alike, with too much a few steps cannot take it out again. The figures are of `glyphs` on prompts of attributes (20
steps) and on classes (6 steps), see docs/study; a request that names a method is sampled as it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sitsearch.workers.search.base import Search

#: Fields of a request's sampler: Euler-Maruyama steps of SiT's diffusion, and GLASS steps of one evaluation.
EULER_MARUYAMA: Mapping[str, Any] = {"method": "euler_maruyama", "norm": 1.0}
GLASS: Mapping[str, Any] = {"method": "glass", "inner": 1, "rho": 0.4}
#: Of searches that sample by several methods: what each of these is to be like. They name no method of their own.
BOTH: Mapping[str, Any] = {name: value for one in (EULER_MARUYAMA, GLASS) for name, value in one.items()}


def noise_for(search: Search[Any], steps: int) -> Mapping[str, Any]:
    """The sampler's fields for the stochastic steps of a search whose trajectories have so many steps."""
    if search.name == "auto":
        return {name: value for name, value in BOTH.items() if name != "method"}
    return GLASS if search.stochastic else {}
