"""Captions of glyphs, made from what their typefaces say of themselves.

The canonical caption is `a bold red italic serif Q on white`. Wording varies at random, and each attribute may be left
out, so that a text tower learns what every word alone means.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sitsearch.models.training.glyphs.dataset import PALETTE
from sitsearch.models.training.glyphs.families import CLASSES

#: The words of each attribute's values; the first is canonical.
CASES: dict[str, tuple[str, ...]] = {
    "uppercase": ("uppercase", "capital", "upper case"),
    "lowercase": ("lowercase", "small", "lower case"),
    "digit": ("digit", "number"),
}
WEIGHTS: dict[str, tuple[str, ...]] = {
    "light": ("light", "thin"),
    "regular": ("regular", "medium", "normal"),
    "bold": ("bold", "heavy", "thick"),
}
SLANTS: dict[str, tuple[str, ...]] = {"italic": ("italic", "slanted"), "upright": ("upright", "roman")}
CATEGORIES: dict[str, tuple[str, ...]] = {
    "serif": ("serif", "serifed"),
    "sans": ("sans", "sans-serif", "sans serif"),
    "mono": ("mono", "monospaced", "monospace"),
    "display": ("display", "decorative"),
    "handwriting": ("handwriting", "handwritten"),
}
COLORS: dict[str, tuple[str, ...]] = {name: (name,) for name in PALETTE} | {"gray": ("gray", "grey")}

#: Attribute -> value -> words. The character is not among them: its only word is itself.
VOCABULARY: dict[str, dict[str, tuple[str, ...]]] = {
    "case": CASES,
    "weight": WEIGHTS,
    "slant": SLANTS,
    "category": CATEGORIES,
    "ink": COLORS,
    "paper": COLORS,
}
ATTRIBUTES = ("character", *VOCABULARY)

LIGHT_UP_TO, BOLD_FROM = 300, 600
_CATEGORY_NAMES = {"sans-serif": "sans", "monospace": "mono"}
#: Fixed-width families that their metadata file elsewhere.
_MONOSPACED = {"cascadia-code", "noto-sans-mono"}
_ON = (" on {}", " on {}", " on {}", " on a {} background", " with a {} background", " on {} paper")
_VOWELS = frozenset("aeiou")
#: What is said with a vowel first, letter by letter.
_SPOKEN_VOWELS = frozenset("AEFHILMNORSXaefhilmnorsx8")


@dataclass(frozen=True)
class Glyph:
    """What can be said of one picture; None is not known. The values are `VOCABULARY`'s keys."""

    character: str | None = None
    case: str | None = None
    weight: str | None = None
    slant: str | None = None
    category: str | None = None
    ink: str | None = None
    paper: str | None = None

    def only(self, kept: Collection[str]) -> Glyph:
        """The same with the attributes outside `kept` not known."""
        return Glyph(**{name: getattr(self, name) for name in kept})


def describe(face: Mapping[str, Any], *, weights: int, slants: int) -> Glyph:
    """What holds for every glyph of a face.

    Args:
        face: an entry of the NPZ's `faces`; see `sitsearch.models.training.glyphs.render`.
        weights: how many weights its family has. A lone one is called 400 however thick it is, so it tells nothing.
        slants: 2 if its family has italics and uprights, else 1. Many scripts and display faces lean without saying so.
    """
    weight = "light" if face["weight"] <= LIGHT_UP_TO else "bold" if face["weight"] >= BOLD_FROM else "regular"
    category = "mono" if face["family"] in _MONOSPACED else _CATEGORY_NAMES.get(face["category"], face["category"])
    leans = "italic" if face["italic"] else "upright"
    plain = category in ("serif", "sans", "mono")
    return Glyph(
        weight=weight if weights > 1 else None, slant=leans if plain or slants > 1 else None, category=category
    )


def describe_all(faces: Sequence[Mapping[str, Any]]) -> list[Glyph]:
    """`describe` each of the faces, with what their families hold counted among them."""

    def count(family: str, key: str) -> int:
        return len({face[key] for face in faces if face["family"] == family})

    return [
        describe(face, weights=count(face["family"], "weight"), slants=count(face["family"], "italic"))
        for face in faces
    ]


def case_of(character: str) -> str:
    """`uppercase`, `lowercase` or `digit`."""
    return "digit" if character.isdigit() else "uppercase" if character.isupper() else "lowercase"


def values_of(attribute: str) -> list[str]:
    """Everything an attribute can be."""
    return list(CLASSES) if attribute == "character" else list(VOCABULARY[attribute])


def canonical(glyph: Glyph) -> str:
    """One fixed wording of all that is known: weight, ink, slant, category, case, character, paper.

    A known character is not preceded by its case, which its own form already shows.
    """
    known = ((name, getattr(glyph, name)) for name in ("weight", "ink", "slant", "category"))
    words = [VOCABULARY[name][value][0] for name, value in known if value]
    text = _article(" ".join([*words, *_noun(glyph, None)]))
    return f"{text} on {glyph.paper}" if glyph.paper else text


def worded(glyph: Glyph, rng: random.Random) -> str:
    """A random wording of all that is known of a glyph."""
    words = {
        name: rng.choice(choice[value]) if rng.random() < 0.4 else choice[value][0]
        for name, choice in VOCABULARY.items()
        if (value := getattr(glyph, name))
    }
    adjectives = [words[name] for name in ("weight", "ink", "slant", "category") if name in words]
    if rng.random() < 0.35:
        rng.shuffle(adjectives)
    after = ""
    if "ink" in words and rng.random() < 0.15:
        adjectives.remove(words["ink"])
        after += f" in {words['ink']}"
    if "paper" in words:
        after += rng.choice(_ON).format(words["paper"])
    text = " ".join([*adjectives, *_noun(glyph, rng, words.get("case"))])
    text = _article(text) if rng.random() < 0.8 else text
    lead = rng.choice(("a picture of ", "an image of ", "a photo of ")) if rng.random() < 0.1 else ""
    text = lead + text + after
    # a lone character must keep its case
    return text[0].upper() + text[1:] if " " in text and rng.random() < 0.08 else text


def _noun(glyph: Glyph, rng: random.Random | None, case_word: str | None = None) -> list[str]:
    """The words that name the character, or as much of it as is known."""
    if glyph.character is None:
        if glyph.case in (None, "digit"):
            return [glyph.case or "character"]
        return [case_word or str(glyph.case), "letter"]
    if rng is None or rng.random() < 0.6:
        return [glyph.character]
    if case_word is None or rng.random() < 0.2:
        return [rng.choice(("character", "glyph")), glyph.character]
    if glyph.case == "digit":
        return [case_word, glyph.character]
    return [*rng.choice(([case_word], ["letter"], [case_word, "letter"])), glyph.character]


def _article(text: str) -> str:
    first = text.split()[0]
    vowel = first in _SPOKEN_VOWELS if len(first) == 1 else first[0] in _VOWELS
    return f"{'an' if vowel else 'a'} {text}"
