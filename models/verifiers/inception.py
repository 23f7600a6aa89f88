"""The InceptionV3 in which FID and Inception Score are published, through torch-fidelity."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-untyped]
    FeatureExtractorInceptionV3,
)

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, class_indices
from sitsearch.models.verifiers.class_score import RANGES, ClassMode, class_score
from sitsearch.models.verifiers.weights import read_state

#: Layers of pooled features and of the logits without bias, on which Inception Score is defined.
POOL, LOGITS = "2048", "logits_unbiased"


class InceptionV3(Verifier):
    """Score of the asked class under TensorFlow's InceptionV3 of 2015, whose features FID is defined on.

    Args:
        weights: torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`, or the same as safetensors or state dict.
        device: where it runs.
        sha256: checksum of a file that is not safetensors.
        first_class: output that stands for class 0; the network has 1008, ImageNet's 1000 begin at 1.
        mode: which score of the class; see `ClassMode`.

    Raises:
        BadWeights: the file cannot be read.
    """

    needs: frozenset[Need] = frozenset({"class"})

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        sha256: str | None = None,
        first_class: Annotated[int, Field(ge=0, le=8)] = 1,
        mode: ClassMode = "probability",
    ) -> None:
        safe = io.BytesIO()  # torch-fidelity unpickles whatever it is given: give it what was read without unpickling
        torch.save(read_state(weights, sha256=sha256), safe)
        safe.seek(0)
        self.net = FeatureExtractorInceptionV3("inception", [POOL, LOGITS], feature_extractor_weights_path=safe)
        self.net.to(device)
        self.device, self.first, self.mode, self.range = device, first_class, mode, RANGES[mode]
        self.num_classes = 1000

    @torch.inference_mode()
    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        check_images(images)
        pixels = (images.to(self.device) * 255).round().to(torch.uint8)
        pooled, logits = self.net(pixels)
        return pooled.cpu(), logits.cpu()

    def features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to pooled features `[B, 2048]`; not differentiable."""
        return self._forward(images)[0]

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to log-probabilities of all 1008 outputs, as Inception Score takes them."""
        return self._forward(images)[1].log_softmax(dim=1)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """The asked class's score in this verifier's mode; see `Verifier.score`."""
        logits = self._forward(images)[1]
        return class_score(logits, class_indices(conditions, len(images), self.num_classes) + self.first, self.mode)
