"""Handles as Ray Serve's, that answer at once: a coordinator can be run over them without Ray, network or weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import numpy as np

from sitsearch.models.catalog import model_card
from sitsearch.models.condition import Condition
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.offer import ModelOffer, VerifierOffer
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.search.sampling import Sampling


class StubCall:
    """What a Serve handle's method is to its caller."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._answer = answer

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        """The answer, under way."""
        return asyncio.ensure_future(self._answer(*args))


class StubSampler:
    """Images of nothing, at the planned cost, once the gate is open.

    Args:
        gate: what calls wait for.

    Attributes:
        waiting, answered: calls so far, and those that were answered.
    """

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate, self.waiting, self.answered = gate, 0, 0
        self.sample, self.describe = StubCall(self._sample), StubCall(self._describe)

    def options(self, **_: Any) -> StubSampler:
        """As a Serve handle's: whoever is asked, the answer is the same."""
        return self

    def draw(self, orders: Sequence[Order]) -> np.ndarray:
        """The images of some orders, `[N, 32, 32, 3]` uint8."""
        return np.zeros((len(orders), 32, 32, 3), dtype=np.uint8)

    async def _describe(self) -> ModelOffer:
        card = model_card("glyphs")
        return ModelOffer(
            name=card.name,
            title=card.title,
            classes=card.classes,
            image_size=card.image_size,
            parameters=1,
            macs_per_forward=1,
            samplers=tuple(METHODS.values()),
            default_sampler=SamplerChoice(**card.sampler),
            license=card.license,
            template=card.template,
            forwards_per_second=1.0,
        )

    async def _sample(
        self, job: str, orders: Sequence[Order], priority: float, lent: Sequence[np.ndarray | None] | None = None
    ) -> Made[np.ndarray]:
        self.waiting += 1
        await self.gate.wait()
        self.answered += 1
        costs = [
            Sampling(method=METHODS[o.sampler.method], choice=o.sampler).cost(o.recipe, o.known, evaluated=o.evaluated)
            for o in orders
        ]
        forwards = [cost * order.sampler.rows for cost, order in zip(costs, orders, strict=True)]
        return Made(images=self.draw(orders), nfe=costs, forwards=forwards)


class StubVerifier:
    """Scores from nowhere.

    Args:
        name: under which it is offered.
        sets: it judges sets.
    """

    def __init__(self, name: str = "classifier", *, sets: bool = False) -> None:
        self.name, self.sets = name, sets
        self.describe = StubCall(self._describe)
        self.score, self.set_scores = StubCall(self._score), StubCall(self._set_scores)
        self.features = StubCall(self._features)

    def judge(self, images: np.ndarray) -> list[float]:
        """The scores of `[N, H, W, 3]` uint8: later ones are better."""
        return [float(index) for index in range(len(images))]

    async def _describe(self) -> VerifierOffer:
        return VerifierOffer(name=self.name, title="none", needs=("class",), models=("glyphs",), sets=self.sets)

    async def _score(
        self, images: np.ndarray, conditions: Sequence[Condition], _previews: object = None
    ) -> list[float]:
        return self.judge(images)

    async def _set_scores(self, images: np.ndarray, chosen: np.ndarray | None) -> tuple[list[float], np.ndarray]:
        """What `judge` says of each image, whatever is in the set; the feature of an image is its mean."""
        return self.judge(images), images.mean(axis=(1, 2))

    async def _features(self, images: np.ndarray) -> list[list[float]]:
        """The feature of an image is its mean."""
        return [[float(image.mean())] for image in images]
