"""The verifier deployment: scores batches of images with one verifier."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.catalog import load_verifier, verifier_card
from models.condition import Condition
from models.verifiers.base import score_pictures
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

    def score(self, images: np.ndarray, conditions: Sequence[Condition]) -> list[float]:
        """Scores of `images [N, H, W, 3]` uint8 for what was asked, one float each; higher is better."""
        pictures = torch.from_numpy(images.copy())  # Ray hands out read-only memory
        return score_pictures(self._verifier, pictures, conditions, batch=self._batch)
