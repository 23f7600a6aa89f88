"""The verifier deployment: scores batches of images with one verifier."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.catalog import load_verifier, verifier_card
from workers.jobs.schemas import VerifierOffer
from workers.settings import Settings


class VerifierReplica:
    """One verifier.

    Args:
        name: name of the verifier card.
        settings: the deployment's settings, as `Settings.model_dump` gives them.
    """

    def __init__(self, name: str, settings: dict[str, Any]) -> None:
        config = Settings(**settings)
        torch.set_num_threads(os.cpu_count() or 1)  # Ray would leave one
        self.card = verifier_card(name)
        self._verifier = load_verifier(name, device="cuda" if torch.cuda.is_available() else "cpu")
        self._batch = config.batch

    def describe(self) -> VerifierOffer:
        """What this replica can score."""
        card = self.card
        low, high = (bound if math.isfinite(bound) else None for bound in card.range)
        return VerifierOffer(name=card.name, title=card.title, needs=card.needs, models=card.models, range=(low, high))

    def score(self, images: np.ndarray, classes: Sequence[int]) -> list[float]:
        """Scores of `images [N, H, W, 3]` uint8 for the asked classes, one float each; higher is better.

        Batches are padded to one shape, so that a score never depends on what is scored beside it.
        """
        scores: list[float] = []
        for start in range(0, len(images), self._batch):
            part = torch.from_numpy(images[start : start + self._batch].copy()).permute(0, 3, 1, 2).float() / 255
            wanted = torch.tensor(classes[start : start + self._batch])
            count = len(part)
            pad = self._batch - count
            part = torch.cat([part, part.new_zeros(pad, *part.shape[1:])])
            wanted = torch.cat([wanted, wanted.new_zeros(pad)])
            scores += self._verifier.score(part, wanted)[:count].tolist()
        return scores
