"""Log-probability of the asked class under a classifier: the paper's "Oracle IS" and logit verifiers, in log space."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from models.verifiers.base import check_classes, check_images
from models.verifiers.glyph_net import GlyphNet


class GlyphClassifier:
    """The bundled classifier of 62 characters.

    Args:
        weights: state dict of a `GlyphNet`.
        device: where it runs.
        width: channels of its first stage.
    """

    image_size = 32

    def __init__(self, weights: Mapping[str, Tensor], *, device: str = "cpu", width: int = 48) -> None:
        self.num_classes = len(weights["head.bias"])
        self.net = GlyphNet(self.num_classes, width)
        self.net.load_state_dict(weights)
        self.net.to(device).eval().requires_grad_(False)
        self.device = device

    @torch.inference_mode()
    def log_probabilities(self, images: Tensor) -> Tensor:
        """`[B, 3, 32, 32]` in [0, 1] to log-probabilities `[B, num_classes]`."""
        check_images(images, self.image_size)
        return self.net(images.to(self.device)).log_softmax(dim=1).cpu()

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """The pooled features `[B, features_dim]` in which FID and IS are measured for `glyphs`."""
        check_images(images, self.image_size)
        return self.net.features(images.to(self.device)).cpu()

    def score(self, images: Tensor, classes: Tensor) -> Tensor:
        """log p(class | image), at most 0; see `Verifier.score`."""
        check_classes(classes, len(images), self.num_classes)
        return self.log_probabilities(images).gather(1, classes[:, None]).squeeze(1)
