"""Image statistics as cheap baselines: they know nothing of what was asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier, check_count, check_images

#: Weights of red, green and blue in luma, ITU-R BT.601, which Pillow's "L" and OpenCV's grey use.
LUMA = (0.299, 0.587, 0.114)


def luma(images: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` in [0, 1] to `[B, H, W]` in [0, 1]."""
    return torch.einsum("bchw,c->bhw", images, images.new_tensor(LUMA))


class Sharpness(Verifier):
    """Variance of the Laplacian of the luma (Pech-Pacheco et al. 2000), 0 for a flat image.

    The Laplacian is the 3x3 kernel of four neighbours, with the edges mirrored as OpenCV's `Laplacian` does.
    """

    range = (0.0, 16.0)  # the Laplacian of values in [0, 1] lies in [-4, 4]

    def __init__(self, weights: None = None, *, device: str = "cpu") -> None:
        self.device = device

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        if min(images.shape[2:]) < 2:
            raise ValueError(f"images must be at least 2 pixels wide and high, not {list(images.shape)}")
        grey = luma(images.to(self.device))
        padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="reflect")[:, 0]
        neighbours = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
        return (neighbours - 4 * grey).flatten(1).var(dim=1, correction=0).cpu()


class Contrast(Verifier):
    """RMS contrast: standard deviation of the luma (Peli 1990), 0 for a flat image, 0.5 for half black, half white."""

    range = (0.0, 0.5)

    def __init__(self, weights: None = None, *, device: str = "cpu") -> None:
        self.device = device

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        return luma(images.to(self.device)).flatten(1).std(dim=1, correction=0).cpu()
