"""Human Preference Score v2 through open_clip."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, prompts_of
from sitsearch.models.verifiers.clip import OpenClip


class HPSv2(OpenClip, Verifier):
    """Cosine of image and prompt under a CLIP fine-tuned on preferences (arXiv 2306.09341).

    As the published `hpsv2.score`: the cosine itself, without the learned scale, about 0.2 to 0.3 for good images.

    Args:
        weights: `HPS_v2_compressed.pt`, `HPS_v2.1_compressed.pt`, or the same as safetensors or state dict.
        device: where it runs.
        architecture: open_clip's name of the network.
        sha256: checksum of a file that is not safetensors.

    Raises:
        BadWeights: see `OpenClip`.
    """

    needs: frozenset[Need] = frozenset({"prompt"})
    range = (-1.0, 1.0)
    differentiable = True

    def __init__(
        self, weights: Weights, *, device: str = "cpu", architecture: str = "ViT-H-14", sha256: str | None = None
    ) -> None:
        super().__init__(weights, device=device, architecture=architecture, sha256=sha256)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        return self.cosines(images, prompts_of(conditions, len(images)))

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        return self.differentiable_cosines(images, prompts_of(conditions, len(images)))
