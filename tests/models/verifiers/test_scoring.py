"""Pictures are scored in batches that change no score."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sitsearch.models.catalog import load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer

PICTURES = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def asked(count: int) -> list[Condition]:
    return [Condition(class_index=i % 62, prompt=f"picture {i}") for i in range(count)]


@pytest.mark.parametrize("name", ["classifier", "clip_score"])
def test_a_picture_gets_the_same_bits_whatever_is_scored_beside_it(name: str) -> None:
    scorer, conditions = Scorer(load_verifier(name), batch=16), asked(20)
    together = scorer.score(PICTURES, conditions)
    for first, last in ((0, 1), (0, 5), (7, 16), (19, 20)):
        assert scorer.score(PICTURES[first:last], conditions[first:last]) == together[first:last]


class Mean(Verifier):
    """The mean of an image, which adds up otherwise in batches of 4."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        self.sizes.append(len(images))
        return images.mean(dim=(1, 2, 3)) * (1 + 1e-6 * (len(images) == 4))


def test_only_sizes_that_give_the_full_batchs_scores_are_used_and_each_is_tried_once() -> None:
    verifier = Mean()
    scorer = Scorer(verifier, batch=8)
    scorer.warm_up(32, 32)
    verifier.sizes.clear()
    scorer.score(PICTURES[:1], asked(1))
    scorer.score(PICTURES[:4], asked(4))
    scorer.score(PICTURES, asked(20))
    assert verifier.sizes == [1, 6, 8, 8, 6]


def test_as_many_conditions_and_previews_are_asked_for_as_there_are_pictures() -> None:
    with pytest.raises(ValueError, match="3 conditions for 20 pictures"):
        Scorer(Mean(), batch=8).score(PICTURES, asked(3))
    with pytest.raises(ValueError, match="1 previews for 20 pictures"):
        Scorer(Mean(), batch=8).score(PICTURES, asked(20), previews=PICTURES[:1])
