"""What every verifier must hold to; a new one is found by itself."""

from __future__ import annotations

from math import inf

import pytest
import torch

from sitsearch.models.catalog import load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from tests.models.test_catalog import VERIFIERS

EACH = pytest.mark.parametrize("name", VERIFIERS)
SIZE = 32

#: What the bundled verifiers need, and between which bounds they score: both are published, and change with a release.
PUBLISHED = {
    "aesthetic": (set(), (-inf, inf)),
    "auditor": ({"class"}, (-inf, 0.0)),
    "classifier": ({"class"}, (-inf, 0.0)),
    "clip_class": ({"class"}, (-inf, 0.0)),
    "clip_score": ({"prompt"}, (-2.5, 2.5)),
    "dinov2": ({"class"}, (-inf, 0.0)),
    "fid": (set(), (-inf, 0.0)),
    "similarity": ({"preview"}, (-1.0, 1.0)),
}


@pytest.fixture(scope="module")
def verifiers() -> dict[str, Verifier]:
    return {name: load_verifier(name) for name in VERIFIERS}


def asked(*classes: int) -> list[Condition]:
    return [Condition(class_index=index, prompt=f"the character {index}") for index in classes]


def batch(size: int) -> tuple[torch.Tensor, list[Condition]]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(size, 3, SIZE, SIZE, generator=generator), asked(*range(size))


@EACH
def test_needs_and_range_are_as_published(name: str, verifiers: dict[str, Verifier]) -> None:
    assert (verifiers[name].needs, verifiers[name].range) == PUBLISHED[name]


@EACH
def test_a_batch_scores_as_its_images_one_by_one_in_any_order(name: str, verifiers: dict[str, Verifier]) -> None:
    verifier, (images, conditions) = verifiers[name], batch(9)
    together = verifier.score(images, conditions, previews=images)
    alone = [slice(i, i + 1) for i in range(9)]
    apart = torch.cat([verifier.score(images[i], conditions[i], previews=images[i]) for i in alone])
    assert together.dtype == torch.float32 and together.shape == (9,)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=0)
    backwards = verifier.score(images.flip(0), conditions[::-1], previews=images.flip(0)).flip(0)
    torch.testing.assert_close(backwards, together, atol=1e-4, rtol=0)


@EACH
def test_scores_are_finite_and_in_range_on_black_white_and_noise(name: str, verifiers: dict[str, Verifier]) -> None:
    low, high = verifiers[name].range
    images = torch.cat([torch.zeros(1, 3, SIZE, SIZE), torch.ones(1, 3, SIZE, SIZE), batch(1)[0]])
    scores = verifiers[name].score(images, asked(0, 1, 2), previews=images)
    assert bool(scores.isfinite().all()) and bool(((scores >= low) & (scores <= high)).all())


@EACH
def test_wrong_shapes_ranges_and_conditions_are_refused(name: str, verifiers: dict[str, Verifier]) -> None:
    verifier, (images, conditions) = verifiers[name], batch(2)
    for bad, message in (
        (images[:, :1], "must be"),
        (images[0], "must be"),
        (images.double(), "float32"),
        (images * 2, r"\[0, 1\]"),
        (images - 1, r"\[0, 1\]"),
        (images * float("nan"), r"\[0, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            verifier.score(bad, conditions, previews=images)
    wrong = [(conditions[:1], "1 conditions for 2 images")]
    if "class" in verifier.needs:
        wrong += [(asked(0, 62), "class 62"), (asked(-1, 0), "class -1"), ([Condition(prompt="Q")] * 2, "class None")]
    if "prompt" in verifier.needs:
        wrong += [([Condition(class_index=0)] * 2, "needs a prompt")]
    for lacking, message in wrong:
        with pytest.raises(ValueError, match=message):
            verifier.score(images, lacking, previews=images)


def bars(horizontal: bool) -> torch.Tensor:
    """A hand-drawn white-on-black capital: H, or I where `horizontal` is not set."""
    image = torch.zeros(1, 3, SIZE, SIZE)
    if horizontal:
        image[..., 2:25, 7:11] = image[..., 2:25, 21:25] = image[..., 12:15, 7:25] = 1
    else:
        image[..., 2:25, 14:18] = 1
    return image


def test_the_classifier_prefers_a_glyph_to_another_letters_shape(verifiers: dict[str, Verifier]) -> None:
    images, label = torch.cat([bars(True), bars(False)]), 7  # H
    right, wrong = verifiers["classifier"].score(images, asked(label, label))
    assert right > -1 > wrong
