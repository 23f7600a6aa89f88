"""Self-supervised similarity: how early a sample knew what it would become."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import FeatureNetwork, Need, Verifier, check_count, check_images


class SelfSimilarity(Verifier):
    """Cosine between features of the data prediction at noise level 0.4 and of the final image (arXiv 2501.09732, 3.2).

    It needs neither label nor text. The paper's features are DINO's, which agree more with class logits, and CLIP's.

    Args:
        weights: none of its own.
        device: where it runs.
        network: whose features are compared; any verifier kind that has features.
    """

    needs: frozenset[Need] = frozenset({"preview"})
    range = (-1.0, 1.0)

    def __init__(self, weights: None = None, *, network: FeatureNetwork, device: str = "cpu") -> None:
        self.network, self.device = network, device

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`; `previews` must be given."""
        check_images(images)
        check_count(conditions, len(images))
        if previews is None:
            raise ValueError("this verifier compares images with their previews: give previews [B, 3, H, W]")
        check_images(previews, name="previews")
        if previews.shape != images.shape:
            raise ValueError(f"previews must be {list(images.shape)} as the images are, not {list(previews.shape)}")
        found = F.cosine_similarity(self.network.features(images), self.network.features(previews), dim=1)
        return found.clamp(-1, 1)  # rounding may lead beyond
