"""The README stays true where a machine can tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sitsearch.workers.settings import Settings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_table_has_every_setting() -> None:
    rows = re.findall(r"^\| `SITSEARCH_(\w+)` \| `[^`]*` \| (.+) \|$", README, re.MULTILINE)
    assert rows == [(name.upper(), field.description) for name, field in Settings.model_fields.items()]


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "CONTRIBUTING.md",
        "deploy/README.md",
        "models/cards/glyphs.md",
        "docs/search.md",
        "docs/models.md",
        "docs/benchmarks.md",
        "docs/scale.md",
        "docs/verifiers.md",
        "docs/verifiers/README.md",
        "docs/study/study.md",
    ],
)
def test_every_file_that_a_document_links_to_is_there(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text())
    assert [target for target in targets if not (path.parent / target).exists()] == []
