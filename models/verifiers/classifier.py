"""The bundled classifier: log-probability, probability, logit or margin of the asked character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, class_indices
from sitsearch.models.verifiers.class_score import RANGES, ClassMode, class_score
from sitsearch.models.verifiers.glyph_net import GlyphNet
from sitsearch.models.verifiers.weights import read_state


class GlyphClassifier(Verifier):
    """Score of the asked character under a convolutional classifier.

    Args:
        weights: state dict of a `GlyphNet`, or its file.
        device: where it runs.
        width: channels of its first stage.
        mode: which score of the class; see `ClassMode`.

    Raises:
        BadWeights: the file cannot be read.
    """

    image_size = 32
    needs: frozenset[Need] = frozenset({"class"})
    differentiable = True

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        width: Annotated[int, Field(ge=1)] = 48,
        mode: ClassMode = "log_probability",
    ) -> None:
        state = read_state(weights)
        self.num_classes = len(state["head.bias"])
        self.net = GlyphNet(self.num_classes, width)
        self.net.load_state_dict(state)
        self.net.to(device).eval().requires_grad_(False)
        self.device, self.mode, self.range = device, mode, RANGES[mode]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """`[B, 3, 32, 32]` in [0, 1] to logits `[B, num_classes]`."""
        check_images(images, self.image_size)
        return self.net(images.to(self.device)).cpu()

    def log_probabilities(self, images: Tensor) -> Tensor:
        """`[B, 3, 32, 32]` in [0, 1] to log-probabilities `[B, num_classes]`."""
        return self.logits(images).log_softmax(dim=1)

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The pooled features `[B, features_dim]` in which FID and IS are measured for `glyphs`."""
        check_images(images, self.image_size)
        return self.net.features(images.to(self.device)).cpu()

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """The asked class's score in this verifier's mode; see `Verifier.score`."""
        logits = self.logits(images)
        return class_score(logits, class_indices(conditions, len(images), self.num_classes), self.mode)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        logits = self.net(images.to(self.device))
        return class_score(logits, class_indices(conditions, len(images), self.num_classes), self.mode)
