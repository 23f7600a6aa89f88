"""Which replica makes what: states midway are wanted where they lie, all else where there is least to do.

A round's orders are spread over slots; one that goes on from a state midway gets the slot in which that state was made.
A slot of a job is a replica, by `ranked`, as long as the replicas stay the same. When one is lost, so are its states:
they are made again by whichever replica has the slot then, and counted as wasted. So it is when one joins that ranks
before those of the job.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from functools import lru_cache

from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Recipe

#: States of one job whose slot is remembered; the oldest are forgotten first, and may be made again elsewhere.
REMEMBERED = 4096


class Slots:
    """The slots of one job.

    Args:
        count: of slots.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._made: OrderedDict[Recipe, int] = OrderedDict()

    def assign(self, orders: Sequence[Order]) -> dict[int, list[int]]:
        """Places in `orders` by slot, ascending; slots without work are left out."""
        if self.count == 1:
            return {0: list(range(len(orders)))}
        slots: list[list[int]] = [[] for _ in range(self.count)]
        fresh = []
        for place, order in enumerate(orders):
            slot = self._made.get(order.recipe.prefix(order.known)) if order.known or order.evaluated else None
            if slot is None:
                fresh.append(place)
            else:
                slots[slot].append(place)
        for place in fresh:
            min(slots, key=len).append(place)
        for slot, places in enumerate(slots):
            for place in places:
                self._remember(orders[place], slot)
        return {slot: sorted(places) for slot, places in enumerate(slots) if places}

    def _remember(self, order: Order, slot: int) -> None:
        """What an order leaves behind on its way: the state before its first operation in time, and after each."""
        recipe = order.recipe
        for position in range(len(recipe.noise.ops), len(recipe.ops) + 1):
            state = recipe.prefix(position)
            if order.revisited or not state.finished:
                self._made[state] = slot
                self._made.move_to_end(state)
        while len(self._made) > REMEMBERED:
            self._made.popitem(last=False)


def key_of(job: str, slot: int) -> str:
    """The name of a job's slot."""
    return f"{slot}:{job}"


def ranked(key: str, replicas: Sequence[str]) -> list[str]:
    """Replicas in the order in which they are to be asked for a slot.

    Every job has an order of its own in which its slots take the replicas in turn, so a job with as many slots as there
    are replicas keeps all of them busy. The order is by rendezvous hashing: when a replica goes, what was ranked before
    it stays where it is.
    """
    slot, _, job = key.partition(":")
    order = _order(job, tuple(replicas))
    first = int(slot) % len(order) if order else 0
    return [*order[first:], *order[:first]]


@lru_cache(maxsize=256)  # the slots of a round are asked for one after another, and hashing 1,000 names takes 0.6 ms
def _order(job: str, replicas: tuple[str, ...]) -> tuple[str, ...]:
    digest = {name: hashlib.blake2b(f"{job}|{name}".encode(), digest_size=8).digest() for name in replicas}
    return tuple(sorted(replicas, key=digest.__getitem__))
