"""A verifier that only sees pixels, followed by its gradient: found out where it spoils pictures, and only there."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.local import search

LETTER = Condition(class_index=16)


class Sharpness(Verifier):
    """Likes edges, whatever they show."""

    differentiable = True
    range = (0.0, 1.0)

    def score(self, images: Tensor, conditions: Sequence[Condition], *, previews: Tensor | None = None) -> Tensor:
        return self.differentiable_score(images, conditions)

    def differentiable_score(self, images: Tensor, conditions: Sequence[Condition]) -> Tensor:
        return (images.diff(dim=2).square().mean((1, 2, 3)) + images.diff(dim=3).square().mean((1, 2, 3))) / 2


@pytest.mark.parametrize(("strength", "flagged"), [(0.4, ()), (3.0, ("auditor",))])
def test_the_auditor_speaks_up_once_pictures_are_spoilt(strength: float, flagged: tuple[str, ...]) -> None:
    found = search(
        load_generator("glyphs", dtype=torch.float32),
        Sharpness(),
        "auto",
        72 * 8,  # `auto` draws its unguided candidates, the auditor's baseline, from 64 trajectories on
        condition=LETTER,
        sampler={"steps": 8, "guidance": 1},
        guide={"strength": strength},
        auditors={"auditor": load_verifier("auditor")},
        batch=64,
    )
    assert found.result.hacking == flagged
    assert found.usage.gradients_search > 0
