"""What a search that ends early still owes: as many finished images as were asked for.

Every search keeps aside what the images that are wanted cost (`base.Search.least`). One that ends by score, patience or
time, before its own end, spends that on them: its best data predictions are carried on to t = 1, and what is missing
besides comes from fresh noise. That is one round, of `num_images` trajectories at most.
"""

from __future__ import annotations

from collections.abc import Sequence

from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.search.base import Allowance, Proposal
from sitsearch.workers.search.runs.plan import plain

#: The draws of these trajectories have indices from here on, so that a search that is extended never draws them again.
FIRST_INDEX = 2**32


def finishing(
    top: Sequence[Recipe],
    count: int,
    allowance: Allowance,
    *,
    seed: int,
    round: int,
    room: int,
    gradients: int | None = None,
) -> tuple[Proposal, ...]:
    """What makes `count` finished images of the best candidates.

    Args:
        top: the best candidates, best first, at most `count`.
        count: finished images that are wanted.
        allowance: says how the search samples.
        seed: the request's.
        round: of the run; it names the proposals and their draws.
        room: NFE that they may cost in all; what does not fit is left out.
        gradients: of a verifier, that they may take in all; what they are too few for is not guided. None is any
            number.
    """
    proposals: list[Proposal] = []

    def propose(recipe: Recipe, index: int, *, evaluated: bool) -> None:
        sampling = allowance.of(recipe)
        known, begun = len(recipe.ops), recipe
        recipe = begun.then(sampling.to_end(begun.time, round=round, index=index))
        taken = sampling.gradients(recipe, known)
        if gradients is not None and taken + sum(proposal.gradients for proposal in proposals) > gradients:
            recipe, taken = begun.then(plain(sampling).to_end(begun.time, round=round, index=index)), 0
        nfe = sampling.cost(recipe, known, evaluated=evaluated)
        if sum(proposal.nfe for proposal in proposals) + nfe <= room:
            name = f"{round}-finish-{len(proposals)}"
            proposals.append(
                Proposal(id=name, recipe=recipe, known=known, evaluated=evaluated, nfe=nfe, gradients=taken)
            )

    missing = count - sum(recipe.finished for recipe in top)
    gone_on = {recipe.prefix(place) for recipe in top for place in _integrations(recipe)}
    for index, recipe in enumerate(top):
        # one that another of them comes from would be that other's image, or its twin
        if not recipe.finished and recipe not in gone_on:
            propose(recipe, FIRST_INDEX + index, evaluated=True)
    for index in range(FIRST_INDEX + len(top), FIRST_INDEX + len(top) + missing - len(proposals)):
        propose(Recipe(seed=seed, round=round, index=index), index, evaluated=False)
    return tuple(proposals)


def _integrations(recipe: Recipe) -> list[int]:
    """The places of a recipe's integrations among its operations."""
    return [place for place, op in enumerate(recipe.ops) if isinstance(op, Integrate)]
