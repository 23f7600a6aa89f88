"""Folders and NPZ files become states in the network's range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sitsearch.models.generator import Pixels
from sitsearch.models.training.config import BadConfig, DataSection
from sitsearch.models.training.data import open_data


def test_an_npz_of_images(images_npz: Path) -> None:
    data = open_data(DataSection(kind="npz", path=images_npz))
    assert len(data) == 40 and data.shape == (3, 8, 8) and data.classes == ("0", "1", "2")
    states = data.states(data[[0, 7]], torch.zeros(2, 0))
    assert states.shape == (2, 3, 8, 8) and states.dtype == torch.float32
    with np.load(images_npz) as arrays:
        assert np.array_equal(Pixels().decode(states).numpy(), arrays["images"][[0, 7]])
        assert data.labels.tolist() == arrays["labels"].tolist()


def test_half_the_images_are_mirrored(images_npz: Path) -> None:
    data = open_data(DataSection(kind="npz", path=images_npz, flip=True))
    raw = data[[0, 0]]
    mirrored, plain = data.states(raw, torch.tensor([[0.2], [0.7]]))
    assert data.uniforms == 1 and torch.equal(mirrored, plain.flip(-1)) and not torch.equal(mirrored, plain)


def test_a_folder_has_a_class_a_sub_folder_and_images_are_cut_to_their_centre(tmp_path: Path) -> None:
    for name, color in (("cat", (255, 0, 0)), ("ape", (0, 0, 255))):
        picture = Image.new("RGB", (40, 20), (0, 255, 0))
        picture.paste(color, (10, 0, 30, 20))
        (tmp_path / name / "more").mkdir(parents=True)
        picture.save(tmp_path / name / "a.png")
        picture.convert("L").save(tmp_path / name / "more" / "grey.jpg")
        (tmp_path / name / "notes.txt").write_text("no picture")
    data = open_data(DataSection(kind="folder", path=tmp_path, size=8))
    assert data.classes == ("ape", "cat") and data.labels.tolist() == [0, 0, 1, 1] and data.shape == (3, 8, 8)
    states = data.states(data[[0, 2]], torch.zeros(2, 0))
    assert states[0, 2].min() > 0.9 and states[1, 0].min() > 0.9  # all blue, all red: the green sides are cut off
    assert states[0, 1].max() < -0.9


def test_latents_keep_their_channels_and_their_scale(tmp_path: Path) -> None:
    latents = np.random.default_rng(0).normal(size=(5, 4, 8, 8)).astype(np.float16)
    np.savez(tmp_path / "l.npz", latents=latents, labels=np.zeros(5, int), classes=np.array(["sea"]))
    data = open_data(DataSection(kind="npz", path=tmp_path / "l.npz"))
    assert data.shape == (4, 8, 8) and data.latents and data.classes == ("sea",)
    assert np.array_equal(data.states(data[[3]], torch.zeros(1, 0)).numpy()[0], latents[3].astype(np.float32))
    with pytest.raises(BadConfig, match="mirrored"):
        open_data(DataSection(kind="npz", path=tmp_path / "l.npz", flip=True))


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"labels": np.zeros(2, int)}, "images"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8)}, "labels"),
        ({"images": np.zeros((2, 8, 8, 3)), "labels": np.zeros(2, int)}, "uint8"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.zeros(3, int)}, "one label a sample"),
        ({"images": np.zeros((2, 8, 8, 3), np.uint8), "labels": np.array([0, -1])}, "labels must be in"),
        ({"latents": np.zeros((2, 4, 8, 8), int), "labels": np.zeros(2, int)}, "float"),
    ],
)
def test_arrays_that_are_something_else_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], why: str) -> None:
    np.savez(tmp_path / "a.npz", allow_pickle=False, **arrays)
    with pytest.raises(BadConfig, match=why):
        open_data(DataSection(kind="npz", path=tmp_path / "a.npz"))


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no sub-folder"):
        open_data(DataSection(kind="folder", path=tmp_path))
    with pytest.raises(BadConfig, match="cannot read"):
        open_data(DataSection(kind="folder", path=tmp_path / "nowhere"))
