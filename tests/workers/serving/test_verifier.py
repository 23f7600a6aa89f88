"""The verifier deployment's own part, without Ray."""

from __future__ import annotations

from pathlib import Path

import pytest

from sitsearch.models.catalog import ROOT
from sitsearch.workers.serving.verifier import VerifierReplica


@pytest.mark.parametrize(("mode", "bounds"), [("probability", (0.0, 1.0)), ("log_probability", (None, 0.0))])
def test_what_is_published_is_what_the_loaded_verifier_needs_and_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, bounds: tuple[float | None, float]
) -> None:
    monkeypatch.setattr("sitsearch.workers.serving.verifier.take_machine", lambda: None)
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    weights = ROOT / "checkpoints" / "glyph_classifier.safetensors"
    (tmp_path / "mine.toml").write_text(
        f'name = "mine"\ntitle = "t"\nkind = "glyph_classifier"\nweights = "{weights}"\nmodels = []\nmode = "{mode}"\n'
    )
    offer = VerifierReplica("mine", batch=2).describe()
    assert (offer.needs, offer.range, offer.models) == (("class",), bounds, ())
