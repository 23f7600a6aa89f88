"""Small data, and the settings of a network that trains on them in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

#: What every test run has in common; `section.field` flags as `read_config` takes them.
TINY = {
    "data.kind": "npz",
    "model.patch_size": "4",
    "model.hidden_size": "32",
    "model.depth": "2",
    "model.num_heads": "2",
    "optimizer.lr": "1e-3",
    "train.batch": "8",
    "train.steps": "6",
    "train.ema": "0.9",
}


@pytest.fixture(scope="session")
def images_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty 8x8 pictures of three classes that differ in brightness."""
    path = tmp_path_factory.mktemp("data") / "images.npz"
    labels = np.arange(40) % 3
    noise = np.random.default_rng(0).integers(0, 60, (40, 8, 8, 3))
    np.savez(path, images=(noise + labels[:, None, None, None] * 90).astype(np.uint8), labels=labels)
    return path


@pytest.fixture
def tiny(images_npz: Path) -> dict[str, str]:
    """Settings of a run on `images_npz`."""
    return TINY | {"data.path": str(images_npz), "data.flip": "true"}


@pytest.fixture(autouse=True)
def one_thread() -> object:
    """Sums in one order, so that runs can be compared to the bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def state(run: Path) -> dict[str, Tensor]:
    """The weights and their average, after a run."""
    saved = torch.load(run / "state.pt", weights_only=True)
    return {f"{part}.{name}": value for part in ("model", "ema") for name, value in saved[part].items()}


def distance(a: Path, b: Path) -> float:
    """Largest difference of any weight, or average of one, of two runs."""
    ours, theirs = state(a), state(b)
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)
