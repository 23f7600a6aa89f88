"""Many conditions in one search, in this process and on a real network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.errors import Unsuitable
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.local import Found, run_request, search
from tests.workers.tiny import tiny_generator

CONDITIONS = [Condition(1, "red"), Condition(3, "blue")]
CHANNELS = {"red": 0, "blue": 2}
STEPS, CANDIDATES = 2, 24


class Wanted(Verifier):
    """Likes the colour that the prompt names; of class 3 its scores lie a hundred times as far apart as of others."""

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        means = images.mean(dim=(2, 3))
        places = [CHANNELS.get(str(condition.prompt), 1) for condition in conditions]
        spread = torch.tensor([1.0 if condition.class_index == 3 else 0.01 for condition in conditions])
        return means[torch.arange(len(images)), places] * spread


class Sets(Wanted):
    """Judges sets too."""

    def features(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    def set_scores(self, chosen: Tensor, candidates: Tensor) -> Tensor:
        return candidates.sum(dim=1).double()


def found_by(allocation: str, **more: Any) -> Found:
    return search(
        tiny_generator(),
        Wanted(),
        budget=STEPS * CANDIDATES,
        condition=CONDITIONS,
        allocation=allocation,
        sampler={"method": "euler", "steps": STEPS, "guidance": 1.0},
        **more,
    )


def test_each_condition_is_made_and_judged_as_itself() -> None:
    found = found_by("adaptive")
    assert found.images.shape == (2, 8, 8, 3) and found.usage.nfe_search == STEPS * CANDIDATES
    for place, image in enumerate(found.result.images):
        mean = found.images[place].float().mean(dim=(0, 1))[CHANNELS[str(CONDITIONS[place].prompt)]] / 255
        assert image.candidate.condition == place
        assert image.score == pytest.approx(float(mean) * (0.01, 1.0)[place], abs=1e-6)
    narrow, wide = (image.nfe or 0 for image in found.result.images)
    assert narrow + wide == STEPS * CANDIDATES and narrow < wide


def test_an_even_allocation_gives_both_the_same() -> None:
    found = found_by("uniform")
    assert [image.nfe for image in found.result.images] == [STEPS * CANDIDATES // 2] * 2


def test_several_images_a_condition_are_its_best_ones() -> None:
    found = found_by("adaptive", per_condition=3)
    scores = [image.score for image in found.result.images]
    assert [image.candidate.condition for image in found.result.images] == [0, 1] * 3
    assert scores[0::2] == sorted(scores[0::2], reverse=True) and scores[1::2] == sorted(scores[1::2], reverse=True)


def test_a_verifier_of_sets_does_not_go_with_an_adaptive_allocation() -> None:
    request = GenerateRequest.model_validate(
        {
            "condition": {"classes": [1, 3]},
            "allocation": "adaptive",
            "budget": {"nfe": 100},
            "verifier": "sets",
            "sampler": {"method": "euler", "steps": STEPS, "guidance": 1.0},
        }
    )
    with pytest.raises(Unsuitable, match="allocation: must be uniform"):
        run_request(Engine(tiny_generator()), {"sets": Sets()}, request, conditions=CONDITIONS)
