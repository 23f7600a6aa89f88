"""What is ordered of the engine. Imports no torch: who orders need not be who makes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sitsearch.models.condition import Condition
from sitsearch.workers.jobs.recipe import Recipe, Reference
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
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


def conditions_of(
    request: GenerateRequest, class_indices: Sequence[int], classes: Sequence[str], template: str | None
) -> list[Condition]:
    """What a request asks for; a class without a prompt has the text that the model's template makes of its name.

    Args:
        request: the request.
        class_indices: of its classes, in order; empty where it asks by prompts.
        classes, template: of its model.
    """
    asked = request.condition.each
    if not class_indices:
        return [Condition(prompt=one.prompt) for one in asked]
    return [
        Condition(index, one.prompt or (template or "{}").format(classes[index]))
        for index, one in zip(class_indices, asked, strict=True)
    ]


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
