"""Sampler and verifier pools that are pure functions of recipes, and that fail as pools do."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import DeploymentUnavailableError

from bench.stub_pools import StubSampler, StubVerifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.serving.persistence import GUILTY, SUSPECT
from tests.simulation.network import World

SIDE = 4


def painted(recipe: Recipe) -> np.ndarray:
    """The image of a recipe, `[SIDE, SIDE, 3]` uint8."""
    digest = hashlib.sha512(recipe.model_dump_json().encode()).digest()
    return np.frombuffer(digest, np.uint8, SIDE * SIDE * 3).reshape(SIDE, SIDE, 3)


def judged(image: np.ndarray) -> float:
    """The score of an image."""
    return int.from_bytes(hashlib.blake2b(image.tobytes(), digest_size=6).digest()) / 2**48


class Sampler(StubSampler):
    """Answers after a while; while `trouble` is above 0, so large a share of calls ends otherwise."""

    def __init__(self, world: World) -> None:
        gate = asyncio.Event()
        gate.set()
        super().__init__(gate)
        self.world, self.trouble = world, 0.0
        self._deaths: Counter[Recipe] = Counter()

    def draw(self, orders: Sequence[Order]) -> np.ndarray:
        return np.stack([painted(order.recipe) for order in orders])

    async def _sample(
        self, job: str, orders: Sequence[Order], priority: float, lent: Sequence[np.ndarray | None] | None = None
    ) -> Made[np.ndarray]:
        draw = self.world.draw
        await asyncio.sleep(draw.uniform(0.01, 3.0))
        if draw.random() < self.trouble:
            self.world.disturbances += 1
            raise self._loss(orders)
        return await super()._sample(job, orders, priority)

    def _loss(self, orders: Sequence[Order]) -> Exception:
        """How a call ends; no order is there when so many replicas die that it must look poisoned."""
        kind = self.world.draw.randrange(3)
        worst = max(self._deaths[order.recipe] for order in orders)
        if kind == 2 or worst >= SUSPECT + GUILTY - 1:
            return DeploymentUnavailableError(None)  # type: ignore[arg-type]
        self._deaths.update(order.recipe for order in orders)
        return ActorDiedError() if kind else ActorUnavailableError("away", None)  # type: ignore[arg-type]


class Verifier(StubVerifier):
    """Scores what it sees, after a while; see `Sampler`."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world, self.trouble = world, 0.0
        self._deaths: Counter[bytes] = Counter()

    def judge(self, images: np.ndarray) -> list[float]:
        return [judged(image) for image in images]

    async def _score(
        self, images: np.ndarray, conditions: Sequence[Condition], _previews: object = None
    ) -> list[float]:
        draw = self.world.draw
        await asyncio.sleep(draw.uniform(0.001, 0.1))
        if draw.random() < self.trouble:
            if draw.randrange(2) or self._deaths[images.tobytes()] >= SUSPECT + GUILTY - 1:
                raise VerifierUnavailable("its source is away")
            self._deaths[images.tobytes()] += 1
            raise ActorDiedError()
        return self.judge(images)
