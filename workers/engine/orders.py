"""What is ordered of the engine. Imports no torch: who orders need not be who makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sitsearch.models.condition import Condition
from sitsearch.workers.jobs.recipe import Recipe, Reference
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.base import Proposal


@dataclass(frozen=True)
class Order:
    """A candidate to make: its recipe, of what, and how.

    Attributes:
        known, evaluated: what an earlier order of the job left behind (see `sitsearch.workers.search.base.Proposal`);
            it is computed again, and counted as recomputed, where it is no longer at hand.
        preview: show the data prediction on the way too; see `Sample.preview`.
        revisited: keep its last state although it is a finished image, see `Proposal`.
        references: by which its recipe is guided, see `Proposal`.
    """

    recipe: Recipe
    condition: Condition
    sampler: SamplerChoice
    known: int = 0
    evaluated: bool = False
    preview: bool = False
    revisited: bool = False
    references: tuple[Reference, ...] = ()


def orders_of(
    proposals: Sequence[Proposal], sampler: SamplerChoice, conditions: Sequence[Condition], *, preview: bool = False
) -> list[Order]:
    """What the engine is to make for a round's proposals, with previews if a verifier needs them."""
    by_method = {None: sampler} | {
        name: sampler.model_copy(update={"method": name}) for name in {p.recipe.method for p in proposals} if name
    }
    return [
        Order(
            proposal.recipe,
            conditions[proposal.condition],
            by_method[proposal.recipe.method],
            proposal.known,
            proposal.evaluated,
            preview,
            proposal.revisited,
            proposal.references,
        )
        for proposal in proposals
    ]
