"""Prompts that say more than the model of `glyphs` is told, and what a picture has of what they say.

The model is told a character and nothing else; a prompt such as "a bold red italic serif Q on white" asks for six
attributes. Which of them a picture has is said by what takes part in no search: colours are measured, the rest is read
by a network trained apart on labels (`sitsearch.models.training.glyphs.verifiers.probe`).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sitsearch.models.training.glyphs.verifiers.captions import Glyph
from sitsearch.models.training.glyphs.verifiers.probe import AttributeProbe
from sitsearch.workers.engine.judge import pixels

#: What is asked for: each combination is one that the training data could have, in any typeface.
ASKED = (
    Glyph("Q", None, "bold", "italic", "serif", "red", "white"),
    Glyph("R", None, "light", "upright", "sans", "blue", "yellow"),
    Glyph("g", None, "bold", "upright", "serif", "white", "purple"),
    Glyph("7", None, "regular", "upright", "mono", "black", "orange"),
    Glyph("k", None, "light", "italic", "serif", "green", "white"),
    Glyph("5", None, "bold", "upright", "sans", "yellow", "brown"),
    Glyph("e", None, "bold", "italic", "sans", "cyan", "black"),
    Glyph("W", None, "regular", "upright", "mono", "pink", "blue"),
    Glyph("a", None, "light", "italic", "mono", "white", "red"),
    Glyph("2", None, "bold", "upright", "serif", "black", "cyan"),
    Glyph("Z", None, "regular", "italic", "serif", "orange", "black"),
    Glyph("m", None, "bold", "upright", "sans", "purple", "pink"),
)
ATTRIBUTES = ("ink", "paper", "weight", "slant", "category", "character")


def attributes_had(probe: AttributeProbe, pictures: Tensor, asked: Sequence[Glyph]) -> list[dict[str, bool]]:
    """Which of `ATTRIBUTES` each picture has as it was asked to.

    Args:
        probe: what reads weight, slant, category and character.
        pictures: `[N, 32, 32, 3]` uint8.
        asked: what was asked of each.
    """
    judged = probe.judge(pixels(pictures))
    return [
        {name: getattr(seen, name) == getattr(glyph, name) for name in ATTRIBUTES}
        for seen, glyph in zip(judged, asked, strict=True)
    ]
