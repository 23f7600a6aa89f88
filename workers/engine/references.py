"""The samples by which others are guided: where they are, and how they are made again."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch

from sitsearch.workers.engine.guiding import References
from sitsearch.workers.engine.latents import Latents, keys
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.jobs.recipe import Integrate, Recipe


class Table:
    """The references of orders that share them: those at hand, and what is to be made again.

    Args:
        job: whose they are.
        order: one of the orders; its references are of its condition, and sampled as it is.
        latents: the states that are at hand.

    Raises:
        ValueError: the order counts more references than it came with.
    """

    def __init__(self, job: str, order: Order, latents: Latents) -> None:
        count = counted(order.recipe)
        if count > len(order.references):
            raise ValueError(f"an order counts {count} references and came with {len(order.references)}")
        self._order, self._references = order, order.references[:count]
        nodes = [latents.get(keys(job, order.condition, order.sampler, one.recipe)[-1]) for one in self._references]
        self._states = [None if node is None else node.x for node in nodes]

    @property
    def missing(self) -> list[Order]:
        """Orders for lost references that can be made now: those that count the fewest others. None if all are here."""
        pairs = zip(self._references, self._states, strict=True)
        lost = [reference.recipe for reference, state in pairs if state is None]
        fewest = min(map(counted, lost), default=0)
        before, order = self._references[:fewest], self._order
        return [
            Order(recipe, order.condition, order.sampler, revisited=True, references=before)
            for recipe in lost
            if counted(recipe) == fewest
        ]

    def take(self, samples: Sequence[Sample]) -> None:
        """What was `missing`, made again."""
        made = {order.recipe: sample.x for order, sample in zip(self.missing, samples, strict=True)}
        pairs = zip(self._references, self._states, strict=True)
        self._states = [made.get(reference.recipe) if state is None else state for reference, state in pairs]

    @cached_property
    def references(self) -> References:
        """All of them, once none is missing."""
        x = torch.stack([state for state in self._states if state is not None])
        return References(x, torch.tensor([one.reward for one in self._references], dtype=x.dtype, device=x.device))


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
