"""Scores of pictures as they come, in batches that change no score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sitsearch.models.batch_sizes import BatchSizes, halvings
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier

#: What sizes of batches are tried with: any class, any words.
PROBE, PROBE_SEED = Condition(class_index=0, prompt="a picture"), 0


class Scorer:
    """Scores pictures with one verifier, a batch at a time.

    A verifier that says so (`Verifier.padded`) is called with batches of such sizes that the same picture gets the same
    bits for a score whatever is scored beside it; see `BatchSizes`.

    Args:
        verifier: what scores.
        batch: images of one call of the verifier, at most.
    """

    def __init__(self, verifier: Verifier, *, batch: int) -> None:
        self.verifier, self.batch = verifier, batch
        self._sizes: dict[tuple[int, int], BatchSizes] = {}  # by height and width

    def warm_up(self, height: int, width: int) -> None:
        """Try all sizes of batches now, so that no scoring waits for it."""
        if self.verifier.padded:
            self._sizes_of(height, width).try_all()

    def score(
        self, pictures: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None
    ) -> list[float]:
        """Scores, higher is better.

        Args:
            pictures: `[N, H, W, 3]` uint8.
            conditions: what was asked of each.
            previews: `[N, H, W, 3]` uint8, the decoded data predictions; see `Verifier.score`.

        Raises:
            ValueError: there are not as many conditions or previews as pictures, or see `Verifier.score`.
            VerifierUnavailable: see `Verifier.score`.
        """
        if len(conditions) != len(pictures):
            raise ValueError(f"{len(conditions)} conditions for {len(pictures)} pictures")
        if previews is not None and len(previews) != len(pictures):
            raise ValueError(f"{len(previews)} previews for {len(pictures)} pictures")
        scores: list[float] = []
        for start in range(0, len(pictures), self.batch):
            part = slice(start, start + self.batch)
            wanted = list(conditions[part])
            pad = self._padding(pictures[part]) if self.verifier.padded else 0
            early = None if previews is None else _unit(previews[part], pad)
            found = self.verifier.score(_unit(pictures[part], pad), wanted + wanted[:1] * pad, previews=early)
            scores += found[: len(wanted)].tolist()
        return scores

    def _padding(self, pictures: Tensor) -> int:
        rows = len(pictures)
        return 0 if rows == self.batch else self._sizes_of(*pictures.shape[1:3]).fitting(rows) - rows

    def _sizes_of(self, height: int, width: int) -> BatchSizes:
        if (height, width) not in self._sizes:

            def run(first: int, size: int) -> Tensor:
                random = torch.Generator().manual_seed(PROBE_SEED)
                images = torch.rand(self.batch, 3, height, width, generator=random)[first : first + size]
                return self.verifier.score(images, [PROBE] * size, previews=images)

            self._sizes[height, width] = BatchSizes(halvings(self.batch), run)
        return self._sizes[height, width]


def _unit(pictures: Tensor, pad: int) -> Tensor:
    images = pictures.permute(0, 3, 1, 2).float() / 255
    return torch.cat([images, images.new_zeros(pad, *images.shape[1:])])
