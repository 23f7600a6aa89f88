"""Search in one process: what it refuses and gives back."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import UNBOUNDED
from sitsearch.workers.engine.judge import telling_features
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


class Telling(Bright):
    """Knows where pictures lie: at how red they are."""

    def features(self, images: Tensor) -> Tensor:
        return torch.stack([images[:, 0].mean((1, 2)), torch.ones(len(images))], dim=1)


@pytest.mark.parametrize("final_steps", [None, 8])
def test_diverse_images_differ_more_than_the_best_do(final_steps: int | None) -> None:
    asked: dict[str, object] = {
        "budget": 500,
        "num_images": 4,
        "sampler": {"method": "euler", "steps": 4, "final_steps": final_steps},
    }
    plain = found(**asked)
    for verifier in (Bright(), Telling()):
        got = found(diversity=0.9, verifier=verifier, **asked)
        choice = got.result.choice
        assert choice is not None and choice.among == 16 and choice.ranks[0] == 0
        assert choice.distance > choice.distance_of_top
        assert got.images.shape == plain.images.shape and not torch.equal(got.images, plain.images)
        scores = [image.score for image in got.result.images]
        assert scores == sorted(scores, reverse=True)
        assert scores == pytest.approx([float(image.float().mean()) / 255 for image in got.images], abs=1e-6)
        if final_steps is None:
            assert torch.equal(got.images[0], plain.images[0])
        if isinstance(verifier, Bright) and not isinstance(verifier, Telling):
            assert _spread(got.images) > _spread(plain.images)
        assert got.usage == plain.usage
    assert plain.result.choice is None


def _spread(images: Tensor) -> float:
    """Mean distance between two pictures."""
    return float(torch.pdist(images.flatten(1).float()).mean())


def test_features_are_of_length_one_and_pictures_stand_in_for_them() -> None:
    pictures = torch.randint(0, 256, (5, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    told = torch.tensor(telling_features(Telling(), pictures, batch=2))
    assert told.shape == (5, 2) and torch.allclose(told.norm(dim=1), torch.ones(5))
    shown = torch.tensor(telling_features(Bright(), pictures, batch=2))
    assert shown.shape == (5, 3 * 8 * 8)
    corner = pictures[1, :2, :3].float().mean((0, 1)) / 255
    assert torch.allclose(shown[1].view(3, 8, 8)[:, 0, 0], corner)


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
