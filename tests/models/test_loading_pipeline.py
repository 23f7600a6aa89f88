"""Text-to-image pipelines through cards: loaded and counted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sitsearch.models import catalog
from sitsearch.models.condition import Condition
from sitsearch.models.errors import BadCard, BadWeights
from tests.models.tiny_sd3 import save_flux, save_sd3


def write_card(folder: Path, *, options: str = "resolution = 16") -> None:
    (folder / "text.toml").write_text(
        f"""
name = "text"
title = "a tiny pipeline"
license = "MIT"
[network]
kind = "text_to_image"
weights = "pipeline"
max_tokens = 24
{options}
[sampler]
method = "euler"
steps = 4
guidance = 4.0
"""
    )


@pytest.mark.parametrize("save", [save_sd3, save_flux, partial(save_flux, guided=False)], ids=["sd3", "dev", "schnell"])
def test_a_pipeline_is_loaded_and_counted_as_it_really_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[[Path], None]
) -> None:
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    save(tmp_path / "pipeline")
    write_card(tmp_path)
    card = catalog.model_card("text")
    assert (card.condition, card.classes, card.image_size) == ("prompt", (), 16)
    generator = catalog.load_generator("text")
    assert (generator.interpolant, generator.prediction) == (card.interpolant, card.prediction)
    rows = generator.rows([Condition(prompt="a red cat")])
    x, t = torch.randn(1, *generator.shape), torch.tensor([0.5])
    generator.evaluate(x, t, rows)
    with FlopCounterMode(display=False) as counter:
        generator.evaluate(x, t, rows)
    assert 2 * generator.macs == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert generator.decoder.decode(x).shape == (1, 16, 16, 3)
    with pytest.raises(BadCard, match="not a SiT"):
        _ = card.network


def test_a_missing_or_unfit_pipeline_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITSEARCH_CARDS_DIR", str(tmp_path))
    write_card(tmp_path)
    with pytest.raises(BadWeights, match="pipeline is missing"):
        catalog.load_generator("text")
    (tmp_path / "pipeline").mkdir()
    with pytest.raises(BadWeights, match="holds no diffusers pipeline"):
        catalog.load_generator("text")
    save_sd3(tmp_path / "pipeline")
    write_card(tmp_path, options="resolution = 17")
    with pytest.raises(BadCard, match="resolution must be"):
        catalog.load_generator("text")
