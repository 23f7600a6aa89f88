"""DINOv2 with a classification head, through transformers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Dinov2ForImageClassification

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Need, Verifier, Weights, check_images, class_indices
from sitsearch.models.verifiers.class_score import RANGES, ClassMode, class_score
from sitsearch.models.verifiers.preprocess import Transform
from sitsearch.models.verifiers.weights import load_pretrained, require_folder


class Dinov2Classifier(Verifier):
    """Score of the asked class under DINOv2's linear head, the paper's "DINO" verifier; images of any size.

    The published backbones and heads are `facebook/dinov2-{small,base,large,giant}-imagenet1k-1-layer`.

    Args:
        weights: folder of `Dinov2ForImageClassification.save_pretrained` with `preprocessor_config.json`.
        device: where it runs.
        mode: which score of the class; the paper searches by the logit. See `ClassMode`.

    Raises:
        BadWeights: the folder lacks a file, or the weights do not fit its configuration.
    """

    needs: frozenset[Need] = frozenset({"class"})
    differentiable = True

    def __init__(self, weights: Weights, *, device: str = "cpu", mode: ClassMode = "log_probability") -> None:
        folder = require_folder(weights, "config.json", "*.safetensors", "preprocessor_config.json")
        self.model: Dinov2ForImageClassification = load_pretrained(Dinov2ForImageClassification, folder, device)
        self.num_classes = int(self.model.config.num_labels)
        self.transform = Transform.from_transformers(folder)
        self.device, self.mode, self.range = device, mode, RANGES[mode]

    @torch.inference_mode()
    def logits(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to logits `[B, num_classes]`."""
        check_images(images)
        return self._logits(images).cpu()

    def _logits(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=self.transform(images.to(self.device))).logits

    def log_probabilities(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to log-probabilities `[B, num_classes]`."""
        return self.logits(images).log_softmax(dim=1)

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` in [0, 1] to the normalised class token `[B, D]`."""
        check_images(images)
        tokens = self.model.dinov2(pixel_values=self.transform(images.to(self.device))).last_hidden_state
        return tokens[:, 0].cpu()

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """The asked class's score in this verifier's mode; see `Verifier.score`."""
        logits = self.logits(images)
        return class_score(logits, class_indices(conditions, len(images), self.num_classes), self.mode)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        """See `Verifier.differentiable_score`."""
        return class_score(self._logits(images), class_indices(conditions, len(images), self.num_classes), self.mode)
