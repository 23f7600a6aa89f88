"""A verifier that likes images of which a given share is dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from sitsearch import Condition, Verifier, check_count, check_images


class InkCoverage(Verifier):
    """Minus the distance between the share of dark pixels and the wanted one.

    Args:
        weights: none.
        device: not used.
        share: of the pixels that shall be dark.
        threshold: mean of the three channels below which a pixel is dark.
    """

    range = (-1.0, 0.0)

    def __init__(
        self,
        weights: None = None,
        *,
        share: Annotated[float, Field(ge=0, le=1)] = 0.25,
        threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5,
        device: str = "cpu",
    ) -> None:
        self.share, self.threshold = share, threshold

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        """See `sitsearch.Verifier.score`."""
        check_images(images)
        check_count(conditions, len(images))
        dark = (images.mean(dim=1) < self.threshold).float().mean(dim=(1, 2))
        return -(dark - self.share).abs()
