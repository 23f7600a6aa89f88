"""The protocol of a verifier."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Verifier(Protocol):
    """Scores images; higher is better. A score never depends on the other images of the batch."""

    def score(self, images: Tensor, classes: Tensor) -> Tensor:
        """Scores of a batch.

        Args:
            images: `[B, 3, H, W]` float32 in [0, 1].
            classes: `[B]` int64, the asked class of each.

        Returns:
            `[B]` float32.

        Raises:
            ValueError: a shape, dtype or range is not as said above.
        """


def score_pictures(verifier: Verifier, pictures: Tensor, classes: Tensor, *, batch: int) -> list[float]:
    """Scores of finished pictures, in batches that are all padded to one shape.

    The same picture then gets the same bits for a score, whatever is scored beside it.

    Args:
        verifier: what scores.
        pictures: `[N, H, W, 3]` uint8.
        classes: `[N]` int64.
        batch: images of one call of the verifier.
    """
    scores: list[float] = []
    for start in range(0, len(pictures), batch):
        part = pictures[start : start + batch].permute(0, 3, 1, 2).float() / 255
        wanted = classes[start : start + batch]
        pad = batch - len(part)
        padded = torch.cat([part, part.new_zeros(pad, *part.shape[1:])])
        scores += verifier.score(padded, torch.cat([wanted, wanted.new_zeros(pad)]))[: len(part)].tolist()
    return scores


def check_images(images: Tensor, size: int) -> None:
    """Raise ValueError unless `images` are `[B, 3, size, size]` float32 in [0, 1]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise ValueError(f"images must be [B, 3, {size}, {size}], not {list(images.shape)}")
    if images.dtype != torch.float32:
        raise ValueError(f"images must be float32, not {images.dtype}")
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images must lie in [0, 1]")


def check_classes(classes: Tensor, batch: int, num_classes: int) -> None:
    """Raise ValueError unless `classes` are `[batch]` int64 in [0, num_classes)."""
    if classes.shape != (batch,) or classes.dtype != torch.int64:
        raise ValueError(f"classes must be [{batch}] int64, not {list(classes.shape)} {classes.dtype}")
    if batch and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
        raise ValueError(f"classes must lie in [0, {num_classes})")
