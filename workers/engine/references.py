"""The samples by which others are guided: where they are, and how they are made again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from sitsearch.workers.engine.guiding import References
from sitsearch.workers.engine.latents import Latents, keys
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.jobs.recipe import Integrate, Recipe, Reference


class Table:
    """The references of orders that share them: those at hand, and what is to be made again.

    Args:
        job: whose they are.
        order: one of the orders; its references are of its condition, and sampled as it is.
        latents: the states that are at hand.

    Attributes:
        missing: orders for the references that are lost. One that is guided comes with those that guide it.

    Raises:
        ValueError: the order counts more references than it came with.
    """

    def __init__(self, job: str, order: Order, latents: Latents) -> None:
        count = counted(order.recipe)
        if count > len(order.references):
            raise ValueError(f"an order counts {count} references and came with {len(order.references)}")
        self._rewards = [reference.reward for reference in order.references[:count]]
        self._states: list[Tensor | None] = []
        self.missing: list[Order] = []
        parts: dict[int, tuple[Reference, ...]] = {}
        for reference in order.references[:count]:
            node = latents.get(keys(job, order.condition, order.sampler, reference.recipe)[-1])
            self._states.append(None if node is None else node.x)
            if node is None:
                first = counted(reference.recipe)
                before = parts.setdefault(first, order.references[:first])
                self.missing.append(
                    Order(reference.recipe, order.condition, order.sampler, revisited=True, references=before)
                )

    def take(self, samples: Sequence[Sample]) -> None:
        """What was `missing`, made again."""
        made = iter(samples)
        self._states = [next(made).x if state is None else state for state in self._states]

    @cached_property
    def references(self) -> References:
        """All of them, once none is missing."""
        x = torch.stack([state for state in self._states if state is not None])
        return References(x, torch.tensor(self._rewards, dtype=x.dtype, device=x.device))


def counted(recipe: Recipe) -> int:
    """References that a recipe counts."""
    guides = [op.guide for op in recipe.ops if isinstance(op, Integrate)]
    return max((getattr(guide, "references", 0) for guide in guides), default=0)


def tables_of(job: str, orders: Sequence[Order], latents: Latents) -> dict[int, Table]:
    """The tables of orders that are guided by references, by the identity of `Order.references`.

    Raises:
        ValueError: see `Table`.
    """
    most: dict[int, Order] = {}
    for order in orders:
        name = id(order.references)
        if counted(order.recipe) > (counted(most[name].recipe) if name in most else 0):
            most[name] = order
    return {name: Table(job, order, latents) for name, order in most.items()}
