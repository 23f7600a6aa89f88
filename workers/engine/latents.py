"""The cache of states midway: what is lost is computed again from its recipe."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import SamplerChoice

#: What a node takes besides its tensors.
OVERHEAD = 500


@dataclass(frozen=True)
class Node:
    """A state midway: `x [C, H, W]`, and the guided prediction there if the field was evaluated."""

    x: Tensor
    prediction: Tensor | None = None

    @property
    def bytes(self) -> int:
        """Memory it takes."""
        tensors = (self.x,) if self.prediction is None else (self.x, self.prediction)
        return OVERHEAD + sum(t.numel() * t.element_size() for t in tensors)


class Latents:
    """Least recently used nodes go first.

    Args:
        capacity: bytes that all nodes together may take.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity, self.bytes = capacity, 0
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, key: bytes) -> Node | None:
        """The node of that key, if it is still here."""
        node = self._nodes.get(key)
        if node is not None:
            self._nodes.move_to_end(key)
        return node

    def put(self, key: bytes, node: Node) -> None:
        """Keep a node, in place of an older one of that key."""
        if old := self._nodes.pop(key, None):
            self.bytes -= old.bytes
        self._nodes[key] = node
        self.bytes += node.bytes
        while self.bytes > self.capacity:
            _, oldest = self._nodes.popitem(last=False)
            self.bytes -= oldest.bytes


def keys(job: str, condition: Condition, sampler: SamplerChoice, recipe: Recipe) -> list[bytes]:
    """Keys of the states after 0, 1, 2, ... operations of a recipe: equal for equal beginnings in the same job."""
    begin = f"{job}|{condition}|{sampler.model_dump_json()}|{recipe.seed}|{recipe.round}|{recipe.index}"
    found = [hashlib.blake2b(begin.encode(), digest_size=16).digest()]
    for op in recipe.ops:
        found.append(hashlib.blake2b(found[-1] + op.model_dump_json().encode(), digest_size=16).digest())
    return found
