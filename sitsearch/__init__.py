"""Spend inference-time compute on better images: search over the noise of flow and diffusion models.

What stands in `__all__` is the public surface; everything else may change. A name is loaded when it is first asked for:
a client of the service needs neither torch nor Ray.

To use a service: `Client`, `Problem`.
To search in this process: `search`, `load_generator`, `load_verifier`, `Condition`.
To find out whether an image is what its file says: `verify`, `Verdict`.
To bring a verifier of one's own: `Verifier`, `SetVerifier`, `FeatureNetwork`, `ClassNetwork`, `Generator`,
`VerifierUnavailable`, and the checks `check_images`, `check_count`, `class_indices`, `prompts_of`.
To bring a search algorithm of one's own: `Search`, `Options`, `State`, `Scored`, `Allowance`, `Sampling`, `Proposal`,
`Candidate`, `Recipe`, `advance`, `score_of`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sitsearch.models.catalog import load_generator, load_verifier
    from sitsearch.models.condition import Condition
    from sitsearch.models.generator import Generator
    from sitsearch.models.verifiers.base import (
        ClassNetwork,
        FeatureNetwork,
        SetVerifier,
        Verifier,
        check_count,
        check_images,
        class_indices,
        prompts_of,
    )
    from sitsearch.models.verifiers.errors import VerifierUnavailable
    from sitsearch.service.client import Client, Problem
    from sitsearch.workers.jobs.job import Candidate
    from sitsearch.workers.jobs.recipe import Recipe
    from sitsearch.workers.local import search
    from sitsearch.workers.search.base import (
        Allowance,
        Options,
        Proposal,
        Scored,
        Search,
        State,
        advance,
        score_of,
    )
    from sitsearch.workers.search.sampling import Sampling
    from sitsearch.workers.verify import Verdict, verify

__all__ = [
    "Allowance",
    "Candidate",
    "ClassNetwork",
    "Client",
    "Condition",
    "FeatureNetwork",
    "Generator",
    "Options",
    "Problem",
    "Proposal",
    "Recipe",
    "Sampling",
    "Scored",
    "Search",
    "SetVerifier",
    "State",
    "Verdict",
    "Verifier",
    "VerifierUnavailable",
    "advance",
    "check_count",
    "check_images",
    "class_indices",
    "load_generator",
    "load_verifier",
    "prompts_of",
    "score_of",
    "search",
    "verify",
]

#: Where each public name is defined.
_HOMES = {
    "models.catalog": ("load_generator", "load_verifier"),
    "models.condition": ("Condition",),
    "models.generator": ("Generator",),
    "models.verifiers.base": (
        "ClassNetwork",
        "FeatureNetwork",
        "SetVerifier",
        "Verdict",
        "Verifier",
        "check_count",
        "check_images",
        "class_indices",
        "prompts_of",
    ),
    "models.verifiers.errors": ("VerifierUnavailable",),
    "service.client": ("Client", "Problem"),
    "workers.jobs.job": ("Candidate",),
    "workers.jobs.recipe": ("Recipe",),
    "workers.local": ("search",),
    "workers.search.base": ("Allowance", "Options", "Proposal", "Scored", "Search", "State", "advance", "score_of"),
    "workers.search.sampling": ("Sampling",),
    "workers.verify": ("Verdict", "verify"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Load a public name (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
