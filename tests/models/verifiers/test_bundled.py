"""The bundled verifiers know glyphs: real weights, on held-out typefaces."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sitsearch.models.catalog import ROOT, load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.training.glyphs.verifiers.captions import Glyph, canonical, values_of
from sitsearch.models.training.glyphs.verifiers.degrade import DEGRADATIONS
from sitsearch.models.training.glyphs.verifiers.evaluate import attribute_accuracy, reading_accuracy
from sitsearch.models.training.glyphs.verifiers.probe import load_probe
from sitsearch.models.training.glyphs.verifiers.train_probe import agreement
from sitsearch.models.verifiers.clip import ClipScore, unit

#: Least share of held-out glyphs that each reader reads; chance is 1/62.
READERS = {"classifier": 0.97, "auditor": 0.97, "dinov2": 0.90, "clip_class": 0.88}
#: Least share of attributes that CLIP tells, in captions that differ in nothing else.
TOLD = {"character": 0.9, "weight": 0.75, "slant": 0.95, "category": 0.6, "ink": 0.9, "paper": 0.97}


@pytest.fixture(scope="module")
def held_out() -> tuple[Tensor, Tensor, list[Glyph]]:
    """Pictures `[N, 3, 32, 32]`, their classes and what is true of them."""
    with np.load(ROOT / "checkpoints" / "glyphs_held_out.npz", allow_pickle=False) as file:
        images = torch.from_numpy(file["images"]).permute(0, 3, 1, 2).float() / 255
        return images, torch.from_numpy(file["labels"]), [Glyph(**said) for said in json.loads(str(file["said"]))]


@pytest.fixture(scope="module")
def clip() -> ClipScore:
    verifier = load_verifier("clip_score")
    assert isinstance(verifier, ClipScore)
    return verifier


@pytest.mark.parametrize("name", READERS)
def test_a_reader_reads_glyphs_of_typefaces_it_never_saw(name: str, held_out: Any) -> None:
    images, labels, _ = held_out
    assert reading_accuracy(load_verifier(name), images, labels) >= READERS[name]  # type: ignore[arg-type]


@pytest.mark.parametrize("attribute", TOLD)
def test_clip_prefers_the_caption_with_the_true_attribute(attribute: str, held_out: Any, clip: ClipScore) -> None:
    images, _, glyphs = held_out
    if attribute == "character":  # 62 captions for each picture
        images, glyphs = images[::4], glyphs[::4]
    share, _ = attribute_accuracy(clip, unit(clip.features(images)), glyphs, attribute, alone=False)
    assert share >= TOLD[attribute] > 1 / len(values_of(attribute))


def test_clips_score_is_higher_for_the_caption_than_for_another_glyphs(held_out: Any, clip: ClipScore) -> None:
    images, _, glyphs = held_out
    own = [Condition(prompt=canonical(glyph)) for glyph in glyphs]
    matched, mixed = clip.score(images, own), clip.score(images, own[1:] + own[:1])
    assert (matched > mixed).float().mean() > 0.97


@pytest.mark.parametrize("damage", DEGRADATIONS)
def test_the_aesthetic_head_prefers_clean_to_degraded(damage: str, held_out: Any) -> None:
    images, _, _ = held_out
    aesthetic, nothing = load_verifier("aesthetic"), [Condition()] * len(images)
    spoilt = DEGRADATIONS[damage](images, torch.full((len(images),), 0.7), torch.Generator().manual_seed(0))
    assert (aesthetic.score(images, nothing) > aesthetic.score(spoilt, nothing)).float().mean() > 0.85


def test_the_judge_of_the_studies_is_right_about_held_out_glyphs(held_out: Any) -> None:
    images, _, glyphs = held_out
    shares = agreement(load_probe().judge(images), glyphs)
    assert min(shares[name] for name in ("ink", "paper", "slant", "character")) > 0.96
    assert shares["weight"] > 0.75 and shares["category"] > 0.6
