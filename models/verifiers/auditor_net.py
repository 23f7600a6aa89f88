"""The auditor: a second reader of glyphs, kept out of every selection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from sitsearch.models.verifiers.base import Weights
from sitsearch.models.verifiers.class_score import RANGES, ClassMode
from sitsearch.models.verifiers.classifier import GlyphClassifier
from sitsearch.models.verifiers.weights import read_state


class AuditorNet(nn.Module):
    """Images `[B, 3, 32, 32]` in [0, 1] to logits `[B, num_classes]`, by a narrow ResNet (arXiv 1512.03385).

    A wide 7x7 stem with max-pooling and activations after the sums: where `GlyphNet` looks closely at strokes, this one
    sees coarse shapes.

    Args:
        num_classes: classes it tells apart.
        widths: channels of each stage; the first works on 8x8, each next one on half that.
        depths: blocks of each stage.
    """

    def __init__(self, num_classes: int, widths: Sequence[int], depths: Sequence[int]) -> None:
        super().__init__()
        config = ResNetConfig(
            embedding_size=widths[0],
            hidden_sizes=list(widths),
            depths=list(depths),
            layer_type="basic",
        )
        config.num_labels = num_classes
        self.model = ResNetForImageClassification(config)

    def features(self, images: Tensor) -> Tensor:
        """The pooled features before the last layer, `[B, widths[-1]]`."""
        return self.model.resnet(pixel_values=images * 2 - 1).pooler_output.flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        return self.model.classifier(self.features(images))


class GlyphAuditor(GlyphClassifier):
    """Score of the asked character under a ResNet that was trained apart from every other verifier.

    Args:
        weights: state dict of an `AuditorNet`, or its file.
        device: where it runs.
        widths, depths: see `AuditorNet`.
        mode: which score of the class; see `ClassMode`.

    Raises:
        BadWeights: the file cannot be read.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        device: str = "cpu",
        widths: Annotated[tuple[int, ...], Field(min_length=1)] = (64, 128, 256),
        depths: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 1, 1),
        mode: ClassMode = "log_probability",
    ) -> None:
        state = read_state(weights)
        self.num_classes = len(state["model.classifier.1.bias"])
        net = AuditorNet(self.num_classes, widths, depths)
        net.load_state_dict(state)
        self.net = net.to(device).eval().requires_grad_(False)  # type: ignore[assignment]
        self.device, self.mode, self.range = device, mode, RANGES[mode]
