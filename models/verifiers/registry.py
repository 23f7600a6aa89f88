"""The kinds of verifier that a card can name."""

from __future__ import annotations

from collections.abc import Callable

from models.verifiers.base import Verifier
from models.verifiers.classifier import GlyphClassifier

#: `kind` of a card -> class taking (weights, *, device, **options of the card). Adding one is a file and a line here.
VERIFIER_KINDS: dict[str, Callable[..., Verifier]] = {"glyph_classifier": GlyphClassifier}
