"""Cards of verifiers, and what they say of a verifier that knows better."""

from __future__ import annotations

from pathlib import Path

import pytest

from sitsearch.models import catalog
from sitsearch.models.errors import BadCard
from sitsearch.models.verifiers.errors import BadOptions


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of cards beside the bundled ones."""
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    return tmp_path


def verifier_card(*lines: str) -> str:
    """The card `mine` of the bundled classifier's network, scoring by probability."""
    weights = catalog.ROOT / "checkpoints" / "glyph_classifier.safetensors"
    said = ('name = "mine"', 'title = "t"', 'kind = "glyph_classifier"', f'weights = "{weights}"', "models = []")
    return "\n".join((*said, 'mode = "probability"', *lines)) + "\n"


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("models = []", "", "models: Field required"),
        ("models = []", 'models = "glyphs"', "models: Input should be a valid tuple"),
        ('title = "t"', "title = 3", "title: Input should be a valid string"),
        ('title = "t"', 'title = "t"\nneeds = ["klass"]', "needs.*: Input should be 'class', 'prompt' or 'preview'"),
        ('title = "t"', 'title = "t"\nrange = ["low", "high"]', r"range\.0: Input should be a valid number"),
        ('title = "t"', 'title = "t"\nrange = [0.0]', r"range\.1: Field required"),
        ('name = "mine"', 'name = "yours"', "has the name 'yours', and its file 'mine'"),
    ],
)
def test_a_verifiers_card_that_is_not_well_formed_is_refused_with_the_field_at_fault(
    cards: Path, before: str, after: str, reason: str
) -> None:
    text = verifier_card()
    assert before in text
    (cards / "mine.toml").write_text(text.replace(before, after))
    with pytest.raises(BadCard, match=rf"mine\.toml.*{reason}"):
        catalog.verifier_card("mine")


def test_what_a_verifiers_card_says_besides_are_options_of_its_kind(cards: Path) -> None:
    (cards / "mine.toml").write_text(verifier_card("colour = 1"))
    with pytest.raises(BadOptions, match="colour: Extra inputs are not permitted"):
        catalog.load_verifier("mine")


def test_a_card_may_say_again_what_its_verifier_needs_and_its_range(cards: Path) -> None:
    for lines in ((), ('needs = ["class"]', "range = [0, 1]"), ('needs = ["class"]', "range = [0.0, 1.0000001]")):
        (cards / "mine.toml").write_text(verifier_card(*lines))
        verifier = catalog.load_verifier("mine")
        assert (verifier.needs, verifier.range) == ({"class"}, (0.0, 1.0))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("needs = []", r"needs: it says \[\], but the verifier has \['class'\]"),
        ('needs = ["class", "prompt"]', r"needs: it says \['class', 'prompt'\]"),
        ("range = [-inf, 0.0]", r"range: it says \[-inf, 0.0\], but the verifier has \[0.0, 1.0\]"),
        ("range = [0.0, nan]", r"range: it says \[0.0, nan\]"),
    ],
)
def test_a_card_that_says_other_needs_or_another_range_than_its_verifiers_is_refused(
    cards: Path, line: str, reason: str
) -> None:
    (cards / "mine.toml").write_text(verifier_card(line))
    with pytest.raises(BadCard, match=rf"mine\.toml: {reason}.*leave it out"):
        catalog.load_verifier("mine")
