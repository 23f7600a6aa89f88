"""The parts that the bundled verifiers are trained with: damage, styled glyphs, the ridge, the loop."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sitsearch.models.training.glyphs.dataset import COLOR_JITTER, PALETTE
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.degrade import DEGRADATIONS, Degradation
from sitsearch.models.training.glyphs.verifiers.fit import fit, save
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs
from sitsearch.models.training.glyphs.verifiers.train_aesthetic import ridge
from sitsearch.models.training.glyphs.verifiers.train_auditor import augmented
from sitsearch.models.training.glyphs.verifiers.train_clip import AttributeHeads, draw

FACES = [
    {"family": "plain", "category": "sans-serif", "weight": 400, "italic": False, "held_out": False},
    {"family": "plain", "category": "sans-serif", "weight": 700, "italic": True, "held_out": False},
    {"family": "other", "category": "monospace", "weight": 400, "italic": False, "held_out": True},
]


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An NPZ as the renderer writes it: a block in the middle stands for every character."""
    path: Path = tmp_path_factory.mktemp("glyphs") / "glyphs.npz"
    masks = np.zeros((len(FACES) * len(CLASSES), 32, 32), np.uint8)
    masks[:, 8:24, 8:24] = 255
    label, face = np.tile(np.arange(len(CLASSES)), len(FACES)), np.repeat(np.arange(len(FACES)), len(CLASSES))
    np.savez(path, masks=masks, label=label, face=face, faces=np.array(json.dumps(FACES)))
    return path


def bars(size: int) -> Tensor:
    """Dark upright bars on light paper, each elsewhere, `[size, 3, 32, 32]`."""
    images = torch.full((size, 3, 32, 32), 0.9)
    for i in range(size):
        images[i, :, 4:28, 6 + i % 16 : 12 + i % 16] = 0.1
    return images


@pytest.mark.parametrize("degrade", DEGRADATIONS.values(), ids=DEGRADATIONS.keys())
def test_damage_keeps_shape_and_range_and_grows_with_severity(degrade: Degradation) -> None:
    clean = bars(32)
    mild, bad = (
        degrade(clean, torch.full((32,), severity), torch.Generator().manual_seed(0)) for severity in (0.0, 1.0)
    )
    assert mild.shape == bad.shape == clean.shape and mild.dtype == torch.float32
    assert float(bad.min()) >= 0 and float(bad.max()) <= 1
    change_mild, change_bad = ((image - clean).square().mean() for image in (mild, bad))
    assert 0 < float(change_mild) < float(change_bad)


def test_the_auditors_augmentation_gives_pictures() -> None:
    masks = torch.rand(64, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    images = augmented(masks, torch.Generator().manual_seed(0))
    assert images.shape == (64, 3, 32, 32)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert torch.equal(images, augmented(masks, torch.Generator().manual_seed(0)))


def test_a_glyph_has_the_colours_that_its_description_names(glyphs: Path) -> None:
    data = StyledGlyphs([glyphs])
    pair = torch.arange(len(data.pairs))
    images = data.images(torch.zeros(len(pair), dtype=torch.int64), pair, torch.Generator().manual_seed(0))
    for image, index in zip(images, pair.tolist(), strict=True):
        said = data.description(0, index)
        for color, pixel in ((said.ink, image[:, 16, 16]), (said.paper, image[:, 1, 1])):
            assert color is not None
            assert float((pixel - torch.tensor(PALETTE[color])).abs().max()) <= COLOR_JITTER + 1e-6


def test_a_description_tells_the_face_and_the_character(glyphs: Path) -> None:
    said = StyledGlyphs([glyphs]).description(len(CLASSES) + CLASSES.index("q"), 0)
    assert (said.character, said.case) == ("q", "lowercase")
    assert (said.weight, said.slant, said.category) == ("bold", "italic", "sans")


def test_held_out_families_are_apart_and_files_join(glyphs: Path) -> None:
    assert len(StyledGlyphs([glyphs])) == 2 * len(CLASSES)
    twice = StyledGlyphs([glyphs, glyphs], held_out=True)
    assert len(twice) == 2 * len(CLASSES)
    assert twice.description(0, 0).category == twice.description(len(CLASSES), 0).category == "mono"


def test_a_batch_says_no_more_than_is_true(glyphs: Path) -> None:
    images, true, said = draw(StyledGlyphs([glyphs]), 8, torch.Generator().manual_seed(0), random.Random(0))
    assert images.shape == (8, 3, 32, 32)
    for whole, part in zip(true, said, strict=True):
        for name, value in vars(part).items():
            assert value is None or value == getattr(whole, name)


def test_heads_pass_over_what_is_not_known(glyphs: Path) -> None:
    torch.manual_seed(0)
    heads = AttributeHeads(8)
    known = StyledGlyphs([glyphs]).description(0, 0)
    embeddings = nn.functional.normalize(torch.randn(2, 8), dim=1)
    both = heads(embeddings, [known, known.only(["ink"])])
    assert bool(both.isfinite())
    heads(embeddings, [known.only(["ink"])] * 2).backward()
    gradients = [p.grad for p in heads.parameters() if p.grad is not None]
    assert gradients and all(bool(gradient.isfinite().all()) for gradient in gradients)


def test_the_ridge_finds_a_line_and_does_not_shrink_its_bias() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 4, generator=generator)
    truth = torch.tensor([1.0, -2.0, 0.5, 0.0])
    weight, bias = ridge(features, features @ truth + 7.0, 1e-6)
    torch.testing.assert_close(weight, truth[None], atol=1e-5, rtol=0)
    torch.testing.assert_close(bias, torch.tensor([7.0]), atol=1e-5, rtol=0)


def test_the_loop_fits_and_saves_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))

    def loss(generator: torch.Generator) -> Tensor:
        x = torch.randn(64, 4, generator=generator)
        value: Tensor = (net(x).squeeze(1) - x.sum(dim=1)).square().mean()
        return value

    before = float(loss(torch.Generator().manual_seed(1)))
    fit(net, loss, steps=60, lr=0.05, seed=0, matrices=[net[0].weight])
    save(net, tmp_path / "net.safetensors")
    assert float(loss(torch.Generator().manual_seed(1))) < before / 4 and not net.training
    saved = load_file(tmp_path / "net.safetensors")
    assert saved["0.weight"].dtype == torch.float16 and saved["1.num_batches_tracked"].dtype == torch.int64
