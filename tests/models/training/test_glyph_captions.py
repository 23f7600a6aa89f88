"""The captions that CLIP learns glyphs from."""

from __future__ import annotations

import random
import re

import open_clip  # type: ignore[import-untyped]
import pytest

from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import (
    ATTRIBUTES,
    VOCABULARY,
    Glyph,
    canonical,
    case_of,
    describe_all,
    worded,
)
from sitsearch.models.training.glyphs.verifiers.train_clip import CONFIG

FULL = Glyph("Q", "uppercase", "bold", "italic", "serif", "red", "white")


def face(family: str, weight: int, *, italic: bool = False, category: str = "sans-serif") -> dict[str, object]:
    return {"family": family, "weight": weight, "italic": italic, "category": category}


@pytest.mark.parametrize(
    ("glyph", "caption"),
    [
        (FULL, "a bold red italic serif Q on white"),
        (Glyph(character="8"), "an 8"),
        (Glyph(slant="italic"), "an italic character"),
        (Glyph(case="lowercase", ink="blue"), "a blue lowercase letter"),
        (Glyph(case="digit", paper="black"), "a digit on black"),
        (Glyph(), "a character"),
    ],
)
def test_the_canonical_caption_says_all_that_is_known(glyph: Glyph, caption: str) -> None:
    assert canonical(glyph) == caption


@pytest.mark.parametrize("left_out", ["weight", "slant", "category", "ink", "paper"])
def test_what_is_left_out_is_never_said(left_out: str) -> None:
    rng = random.Random(0)
    glyph = FULL.only([name for name in ATTRIBUTES if name != left_out])
    forbidden = re.compile(rf"\b({'|'.join(VOCABULARY[left_out][getattr(FULL, left_out)])})\b", re.IGNORECASE)
    assert not any(forbidden.search(worded(glyph, rng)) for _ in range(500))


def test_wordings_vary_and_always_name_a_known_character() -> None:
    rng = random.Random(0)
    captions = {worded(FULL, rng) for _ in range(500)}
    assert len(captions) > 100
    assert all(re.search(r"\bQ\b", caption) for caption in captions)


def test_a_caption_fits_the_text_towers_context() -> None:
    open_clip.add_model_config(CONFIG)
    tokenizer = open_clip.get_tokenizer(CONFIG.stem)
    rng = random.Random(0)
    tokens = tokenizer([worded(FULL, rng) for _ in range(2000)])
    assert bool((tokens == 0).any(dim=1).all())


def test_the_tokenizer_tells_every_character_apart() -> None:
    open_clip.add_model_config(CONFIG)
    tokens = open_clip.get_tokenizer(CONFIG.stem)([canonical(Glyph(character=c)) for c in CLASSES])
    assert len(tokens.unique(dim=0)) == len(CLASSES)


def test_a_lone_weight_is_not_believed() -> None:
    faces = [face("one", 400), face("two", 400), face("two", 700)]
    assert [style.weight for style in describe_all(faces)] == [None, "regular", "bold"]


def test_a_script_without_italics_may_lean_so_its_slant_is_not_known() -> None:
    faces = [
        face("script", 400, category="handwriting"),
        face("sans", 400),
        face("both", 400, category="display"),
        face("both", 400, category="display", italic=True),
    ]
    assert [style.slant for style in describe_all(faces)] == [None, "upright", "upright", "italic"]


def test_categories_have_one_word_and_fixed_width_families_are_mono() -> None:
    faces = [face("a", 400, category="monospace"), face("cascadia-code", 400), face("b", 400)]
    assert [style.category for style in describe_all(faces)] == ["mono", "mono", "sans"]


def test_the_case_of_a_character() -> None:
    assert [case_of(character) for character in "Qq7"] == ["uppercase", "lowercase", "digit"]
