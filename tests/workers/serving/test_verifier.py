"""The verifier deployment's own part, without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np
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
    replica = VerifierReplica("mine", batch=2)
    offer = replica.describe()
    assert (offer.needs, offer.range, offer.models, offer.features) == (("class",), bounds, (), True)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images.flags.writeable = False
    found = np.array(replica.features(images))
    assert len(found) == 5 and np.allclose(np.linalg.norm(found, axis=1), 1)
    assert np.allclose(found[3], replica.features(images[3:4])[0], atol=1e-5)
