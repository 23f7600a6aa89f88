"""The bundled model is a configuration of the trainer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from sitsearch.models.catalog import ROOT, model_card
from sitsearch.models.training.config import read_config
from sitsearch.models.training.glyphs.dataset import GlyphData, GlyphTrainingData
from sitsearch.models.training.glyphs.encoder import GlyphEncoder
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.loop import Trainer

RECIPE = ROOT / "training" / "glyphs" / "recipe.toml"
CLASSIFIER = ROOT / "checkpoints" / "glyph_classifier.safetensors"
GENERATOR = ROOT / "checkpoints" / "glyphs.safetensors"


@pytest.fixture(scope="module")
def glyphs_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two faces of blocks for glyphs, one of them held out, in the format of `render`."""
    path = tmp_path_factory.mktemp("glyphs") / "glyphs.npz"
    masks = np.zeros((2 * len(CLASSES), 32, 32), np.uint8)
    for index, mask in enumerate(masks):
        mask[8:24, 4 + index % 8 : 20 + index % 8] = 255
    np.savez(
        path,
        masks=masks,
        label=np.tile(np.arange(len(CLASSES)), 2),
        face=np.repeat([0, 1], len(CLASSES)),
        faces=np.array(json.dumps([{"held_out": False}, {"held_out": True}])),
    )
    return path


def test_the_recipe_is_the_bundled_network_and_flow(glyphs_npz: Path) -> None:
    config, card, data = read_config(RECIPE, {}), model_card("glyphs"), GlyphTrainingData(glyphs_npz)
    assert config.model.network(data.shape, len(data.classes)) == card.network
    assert data.classes == card.classes
    assert (config.flow.interpolant, config.flow.prediction) == (card.interpolant, card.prediction)
    assert (config.card.name, config.card.title, config.card.license) == (card.name, card.title, card.license)
    assert config.card.template == card.template


def test_the_recipe_goes_on_from_the_bundled_weights(tmp_path: Path, glyphs_npz: Path) -> None:
    changes = {
        "data.path": str(glyphs_npz),
        "align.weights": str(CLASSIFIER),
        "train.init_from": str(GENERATOR),
        "train.batch": "4",
        "train.compile": "false",
    }
    made = Trainer(read_config(RECIPE, changes), tmp_path, accelerator=Accelerator(cpu=True))
    terms = torch.stack([made.take_step(*batch) for batch in made.batches(0, 2)])
    assert made.terms == ("loss", "contrast", "align") and bool(terms.isfinite().all())
    # Even of blocks for glyphs it predicts far more than an untrained network, whose loss is above 1.
    assert float(terms[0, 0]) < 0.6


def test_training_pictures_are_those_of_the_data_set(glyphs_npz: Path) -> None:
    data, glyphs = GlyphTrainingData(glyphs_npz), GlyphData(glyphs_npz)
    index = torch.arange(0, len(data), 7)
    generator = torch.Generator().manual_seed(0)
    expected = glyphs.images(index, generator)
    generator.manual_seed(0)
    pair = torch.randint(len(glyphs.pairs), (len(index),), generator=generator)
    jitter = torch.rand(len(index), 6, generator=generator)
    uniforms = torch.cat([((pair + 0.5) / len(glyphs.pairs))[:, None], jitter], dim=1)
    assert torch.equal(data.states(data[index.tolist()], uniforms), expected * 2 - 1)
    assert len(data) == len(CLASSES)  # the held-out face is left out
    edge = torch.full((1, 7), float(np.nextafter(np.float32(1), np.float32(0))))
    assert data.states(data[[0]], edge).shape == (1, 3, 32, 32)


def test_the_encoder_has_a_feature_a_token() -> None:
    encoder = GlyphEncoder(CLASSIFIER, torch.device("cpu"))
    assert encoder(torch.zeros(2, 3, 32, 32)).shape == (2, model_card("glyphs").network.tokens, encoder.channels)
