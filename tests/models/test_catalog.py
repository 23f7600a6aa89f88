"""Cards and the weights behind them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from models import catalog
from models.errors import BadWeights, UnknownCard
from models.verifiers.registry import VERIFIER_KINDS

MODELS = [p.stem for p in catalog.CARDS.glob("*.toml") if "[network]" in p.read_text()]
VERIFIERS = [p.stem for p in catalog.CARDS.glob("*.toml") if p.stem not in MODELS]


@pytest.mark.parametrize("name", MODELS)
def test_every_model_card_loads_its_weights_and_counts_its_classes(name: str) -> None:
    card = catalog.model_card(name)
    assert card.name == name and len(card.classes) == card.network.num_classes == len(set(card.classes))
    generator = catalog.load_generator(name)
    assert generator.shape == (card.network.in_channels, card.network.input_size, card.network.input_size)
    out = generator.evaluate(torch.zeros(2, *generator.shape), torch.tensor([0.1, 0.9]), torch.tensor([0, 62]))
    assert out.shape == (2, *generator.shape) and bool(out.isfinite().all())


@pytest.mark.parametrize("name", VERIFIERS)
def test_every_verifier_card_names_a_known_kind_and_known_models(name: str) -> None:
    card = catalog.verifier_card(name)
    assert card.kind in VERIFIER_KINDS and set(card.models) <= set(MODELS)
    catalog.load_verifier(name)


def test_an_unknown_card_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UnknownCard, match=r"no card named .nope.; there are .*glyphs"):
        catalog.load_generator("nope")
    with pytest.raises(UnknownCard, match="is a verifier's card"):
        catalog.model_card("classifier")
    with pytest.raises(UnknownCard, match="is a model's card"):
        catalog.verifier_card("glyphs")


def test_weights_that_are_missing_torn_or_of_another_shape_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = tmp_path / "cards"
    cards.mkdir()
    (cards / "glyphs.toml").write_text((catalog.CARDS / "glyphs.toml").read_text())
    monkeypatch.setattr(catalog, "CARDS", cards)
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    weights = tmp_path / "checkpoints" / "glyphs.safetensors"
    weights.parent.mkdir()
    with pytest.raises(BadWeights, match="cannot read the weights"):
        catalog.load_generator("glyphs")
    weights.write_bytes(b"\x80\x04not safetensors")
    with pytest.raises(BadWeights, match="cannot read the weights"):
        catalog.load_generator("glyphs")
    save_file({"pos_embed": torch.zeros(1)}, weights)
    with pytest.raises(BadWeights, match="does not fit the network"):
        catalog.load_generator("glyphs")
