"""Gradients of a verifier's score with respect to a generator's states, in batches that change no gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.batch_sizes import BatchSizes, halvings
from sitsearch.models.condition import Condition
from sitsearch.models.generator import Decoder
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import PROBE, PROBE_SEED

#: A view is the picture shifted by at most this part of its side, either way.
SHIFT = 1 / 16

#: Down and right, in parts of the side.
Shift = tuple[float, float]


class Gradients:
    """d score / d x of states x that a decoder turns into the pictures which a verifier scores.

    Batches are padded as `Scorer`'s are, so that a row gets the same bits whatever is beside it. The generator's
    network has no part in it: x is a data prediction, or any other state that can be decoded.

    Args:
        verifier: a differentiable one.
        decoder: of the generator.
        batch: pictures of one call of the verifier, at most.

    Raises:
        ValueError: the verifier is not differentiable.
    """

    def __init__(self, verifier: Verifier, decoder: Decoder, *, batch: int) -> None:
        if not verifier.differentiable:
            raise ValueError(f"{type(verifier).__name__} has no gradients: it is not differentiable")
        self._verifier, self._decoder, self._batch = verifier, decoder, batch
        self._sizes: dict[tuple[int, ...], BatchSizes] = {}  # by the shape of a state

    def warm_up(self, shape: tuple[int, ...]) -> None:
        """Try all sizes of batches of states `shape` now, so that no gradient waits for it."""
        self._sizes_of(shape).try_all()

    def of(self, x: Tensor, conditions: Sequence[Condition], views: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """The gradients of states.

        Args:
            x: `[N, C, H, W]` float32.
            conditions: what was asked of each.
            views: of each a seed and a number: the gradient is the mean over so many views of the picture, each shifted
                at random. A pattern that only the verifier sees rarely survives that. 0, and None for all, is the
                gradient of the picture as it is.

        Returns:
            `[N, C, H, W]` float32 on x's device. A gradient that is not finite is all zeros.

        Raises:
            ValueError: there are not as many conditions or views as states, or a condition lacks what is needed.
        """
        views = [(0, 0)] * len(x) if views is None else views
        if not len(x) == len(conditions) == len(views):
            raise ValueError(f"{len(conditions)} conditions and {len(views)} views for {len(x)} states")
        shifted = [(row, shift) for row, (seed, count) in enumerate(views) for shift in _shifts(seed, count)]
        found = torch.zeros_like(x)
        for start in range(0, len(shifted), self._batch):
            part = shifted[start : start + self._batch]
            rows = [row for row, _ in part]
            gradients = self._padded(x[rows], [conditions[row] for row in rows], [shift for _, shift in part])
            for row, gradient in zip(rows, gradients, strict=True):  # one by one: a row's sum is in its own order
                found[row] += gradient / max(1, views[row][1])
        return found.where(found.flatten(1).isfinite().all(1)[:, None, None, None], 0.0)

    def _padded(self, x: Tensor, conditions: list[Condition], shifts: list[Shift]) -> Tensor:
        """Of at most `batch` rows."""
        pad = self._sizes_of(tuple(x.shape[1:])).fitting(len(x)) - len(x)
        padded = torch.cat([x, x.new_zeros(pad, *x.shape[1:])])
        return self._gradients(padded, conditions + conditions[:1] * pad, shifts + [(0.0, 0.0)] * pad)[: len(x)]

    @torch.inference_mode(False)
    def _gradients(self, x: Tensor, conditions: Sequence[Condition], shifts: Sequence[Shift]) -> Tensor:
        with torch.enable_grad():
            leaf = x.clone().requires_grad_(True)
            images = self._decoder.render(leaf)
            if any(shift != (0.0, 0.0) for shift in shifts):
                images = torch.stack([_moved(image, shift) for image, shift in zip(images, shifts, strict=True)])
            scores = self._verifier.differentiable_score(images, conditions)
            (gradients,) = torch.autograd.grad(scores.sum(), leaf)
        return gradients

    def _sizes_of(self, shape: tuple[int, ...]) -> BatchSizes:
        if shape not in self._sizes:

            def run(first: int, size: int) -> Tensor:
                random = torch.Generator().manual_seed(PROBE_SEED)
                x = torch.randn(self._batch, *shape, generator=random)[first : first + size]
                return self._gradients(x, [PROBE] * size, [(0.0, 0.0)] * size)

            self._sizes[shape] = BatchSizes(halvings(self._batch), run)
        return self._sizes[shape]


def _shifts(seed: int, count: int) -> list[Shift]:
    """Of each view how far it is moved; of no views the one that is not moved."""
    random = torch.Generator().manual_seed(seed)
    drawn = (2 * torch.rand(count, 2, generator=random) - 1) * SHIFT
    return [(float(down), float(right)) for down, right in drawn.tolist()] or [(0.0, 0.0)]


def _moved(image: Tensor, shift: Shift) -> Tensor:
    """An image `[3, H, W]` moved by whole pixels, what comes in being mirrored."""
    height, width = image.shape[1:]
    down, right = round(shift[0] * height), round(shift[1] * width)
    top, left = max(down, 0), max(right, 0)
    padded = F.pad(image[None], (left, max(-right, 0), top, max(-down, 0)), mode="reflect")[0]
    return padded[:, max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]
