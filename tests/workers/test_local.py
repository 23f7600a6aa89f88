"""Search in one process: what it refuses and gives back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import UNBOUNDED
from sitsearch.workers.errors import Unsuitable
from sitsearch.workers.local import Found, search
from tests.workers.tiny import tiny_generator


class Bright:
    """Likes light pictures."""

    needs: frozenset[str] = frozenset()
    range = UNBOUNDED
    padded = True

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        return images.mean((1, 2, 3))


class Sets(Bright):
    """Judges sets."""

    def features(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))

    def set_scores(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        return -torch.cdist(candidates, chosen).sum(1)


def found(**changes: object) -> Found:
    """What a search over a tiny network finds."""
    asked: dict[str, object] = {
        "verifier": Bright(),
        "algorithm": "random",
        "budget": 40,
        "condition": Condition(class_index=1),
        "sampler": {"method": "euler", "steps": 4},
    }
    return search(tiny_generator(), **(asked | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"verifier": Sets()}, "verifier.name"),
        ({"verifier": {"bright": Bright(), "sets": Sets()}}, "verifier.members.1"),
        ({"auditors": {"sets": Sets()}}, "auditors.0"),
    ],
)
def test_a_verifier_of_sets_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(Unsuitable, match=r"condition\.classes") as refused:
        found(**changes)
    assert refused.value.field == field


def test_a_search_out_of_time_gives_all_images_finished() -> None:
    """With the real engine: what finishing builds on is at hand, and costs what was planned."""
    got = found(
        budget={"nfe": 400, "seconds": 1e-9},
        algorithm="successive_halving",
        num_images=3,
        sampler={"method": "heun", "steps": 8},
    )
    assert got.result.stopped_by == "seconds" and got.result.warnings == ()
    assert [image.finished for image in got.result.images] == [True] * 3 and got.images.shape[0] == 3
    assert got.usage.nfe_finish == sum(image.candidate.nfe for image in got.result.images) > 0
    assert all(image.candidate.nfe < 16 for image in got.result.images)
