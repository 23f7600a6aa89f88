"""The verifier deployment: scores batches of images with one verifier."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import get_args

import numpy as np
import torch

from sitsearch.models.catalog import load_decoder, load_verifier, model_card, verifier_card
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need
from sitsearch.models.verifiers.gradients import Gradients
from sitsearch.models.verifiers.registry import options_schema
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.fingerprints import judge_print
from sitsearch.workers.engine.judge import has_features, has_gradients, judges_sets, set_scores, telling_features
from sitsearch.workers.engine.machine import take_machine
from sitsearch.workers.jobs.offer import VerifierOffer
from sitsearch.workers.serving.health import Health, Watched, watched


class VerifierReplica(Watched):
    """One verifier.

    Args:
        name: name of the verifier card.
        batch: images of one call of its network.
        models: names of the models that are served beside it: it warms up with images of their sizes.
    """

    def __init__(self, name: str, batch: int, models: Sequence[str] = ()) -> None:
        take_machine()
        self.health = Health()
        self.card = verifier_card(name)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._verifier = load_verifier(name, device=self._device)
        self._gradients: dict[str, Gradients] = {}  # by the model whose states they are of
        self._scorer = Scorer(self._verifier, batch=batch)
        for size in {model_card(model).image_size for model in models if model in (self.card.models or models)}:
            self._scorer.warm_up(size, size)
        self._rate = 0.0

    def describe(self) -> VerifierOffer:
        """What this replica can score."""
        card = self.card
        low, high = (bound if math.isfinite(bound) else None for bound in self._verifier.range)
        return VerifierOffer(
            name=card.name,
            title=card.title,
            needs=tuple(need for need in get_args(Need) if need in self._verifier.needs),
            models=card.models,
            range=(low, high),
            sets=judges_sets(self._verifier),
            features=has_features(self._verifier),
            differentiable=has_gradients(self._verifier),
            images_per_second=round(self._rate, 1) or None,
            options_schema=options_schema(card.kind),
            fingerprint=judge_print(self._verifier, device=self._device, batch=self._scorer.batch),
        )

    def check_health(self) -> None:
        """Called by Serve; a replica that can do nothing more is replaced."""
        self.health.check()

    @watched
    def score(
        self, images: np.ndarray, conditions: Sequence[Condition], previews: np.ndarray | None = None
    ) -> list[float]:
        """Scores of `images [N, H, W, 3]` uint8 for what was asked, one float each; higher is better.

        `previews`, of the same shape, are for a verifier that needs them.
        """
        pictures = torch.from_numpy(images.copy())  # Ray hands out read-only memory
        early = None if previews is None else torch.from_numpy(previews.copy())
        begin = time.perf_counter()
        scores = self._scorer.score(pictures, conditions, previews=early)
        # Of the fastest call: the first ones warm up, and small ones leave the batch empty.
        self._rate = max(self._rate, len(images) / (time.perf_counter() - begin))
        return scores

    @watched
    def gradients(
        self, model: str, x: np.ndarray, conditions: Sequence[Condition], views: Sequence[tuple[int, int]]
    ) -> np.ndarray:
        """d score / d x of a model's states `x [N, C, H, W]` float32; see `Gradients.of`.

        Raises:
            ValueError: the verifier is not differentiable.
        """
        if model not in self._gradients:
            decoder = load_decoder(model, device=self._device)
            self._gradients[model] = Gradients(self._verifier, decoder, batch=self._scorer.batch)
        states = torch.from_numpy(x.copy()).to(self._device)
        return self._gradients[model].of(states, conditions, views).cpu().numpy()

    @watched
    def set_scores(self, images: np.ndarray, chosen: np.ndarray | None) -> tuple[list[float], np.ndarray]:
        """Scores of the set so far with each of `images [N, H, W, 3]` uint8 added alone, and the images' features.

        Args:
            images: candidates.
            chosen: `[n, D]`, features of the set so far; None for the empty one.
        """
        pictures = torch.from_numpy(images.copy())
        before = None if chosen is None else torch.from_numpy(chosen.copy())
        scores, features = set_scores(self._verifier, pictures, before)  # type: ignore[arg-type]
        return scores, features.numpy()

    @watched
    def features(self, images: np.ndarray) -> list[list[float]]:
        """What tells images `[N, H, W, 3]` uint8 apart, `[N, D]`; see `telling_features`."""
        return telling_features(self._verifier, torch.from_numpy(images.copy()), batch=self._scorer.batch)
