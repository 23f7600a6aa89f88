"""The judge of attributes, and the hard captions that CLIP is trained on."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from sitsearch.models.training.glyphs.dataset import PALETTE
from sitsearch.models.training.glyphs.verifiers.captions import Glyph, case_of
from sitsearch.models.training.glyphs.verifiers.probe import color_names, mask_of, measured_colors
from sitsearch.models.training.glyphs.verifiers.train_clip import SIBLINGS, sibling_loss, siblings
from sitsearch.models.training.glyphs.verifiers.train_probe import agreement

FULL = Glyph("Q", "uppercase", "bold", "italic", "serif", "red", "white")


def bar(ink: str, paper: str) -> Tensor:
    """`[1, 3, 32, 32]`: an upright bar with soft edges."""
    mask = torch.zeros(32, 32)
    mask[4:28, 12:18] = 1
    mask[4:28, 11] = mask[4:28, 18] = 0.5
    a, b = (torch.tensor(PALETTE[name])[:, None, None] for name in (ink, paper))
    return (b + (a - b) * mask)[None]


@pytest.mark.parametrize(("ink", "paper"), [("red", "white"), ("white", "purple"), ("black", "orange")])
def test_colours_are_measured_and_named(ink: str, paper: str) -> None:
    found = measured_colors(bar(ink, paper))
    assert [color_names(colors) for colors in found] == [[ink], [paper]]


def test_the_mask_is_the_same_in_all_colours() -> None:
    masks = [mask_of(bar(*pair)) for pair in (("red", "white"), ("yellow", "blue"))]
    torch.testing.assert_close(masks[0], masks[1], atol=1e-5, rtol=0)
    assert masks[0].shape == (1, 1, 32, 32) and masks[0][0, 0, 10, 11] == pytest.approx(0.5)


def test_a_flat_picture_has_an_empty_mask() -> None:
    assert float(mask_of(torch.full((1, 3, 32, 32), 0.4)).max()) == 0


def test_agreement_counts_only_what_is_known() -> None:
    judged = [FULL, FULL]
    assert agreement(judged, [FULL.only(["ink"]), Glyph(ink="blue", weight="bold")]) == {"ink": 0.5, "weight": 1.0}


def test_siblings_differ_from_a_caption_in_one_attribute() -> None:
    for seed in range(50):
        changed = siblings(FULL, random.Random(seed))
        assert 1 <= len(changed) <= SIBLINGS and len(set(changed)) == len(changed)
        for each in changed:
            differing = {name for name, value in vars(each).items() if value != getattr(FULL, name)}
            assert len(differing - {"case"}) == 1
            assert each.case == case_of(str(each.character))


def test_nothing_known_has_no_siblings() -> None:
    with pytest.raises(ValueError, match="can be changed"):
        siblings(Glyph(case="digit"), random.Random(0))


def test_the_sibling_loss_is_small_where_pictures_match_their_own_captions() -> None:
    def encode(texts: list[str]) -> Tensor:
        return torch.stack([torch.eye(2)[0 if "red" in text else 1] for text in texts]) * 20

    red = Glyph(ink="red")
    right, wrong = (sibling_loss(encode, torch.eye(2)[[place]], [red], 0) for place in (0, 1))
    assert float(right) < 0.01 < 1 < float(wrong)
