"""What is trained on: folders of images, NPZ files of images or latents, and the glyphs. One line a kind in `DATA`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from sitsearch.models.training.config import BadConfig, DataSection
from sitsearch.models.training.glyphs.dataset import GlyphTrainingData

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


class TrainingData(Protocol):
    """Labelled samples. Reading (in loader processes) is apart from augmenting (on the training device).

    Attributes:
        labels: `[N]` int64 in [0, len(classes)), on the CPU.
        classes: names, by index.
        shape: `(C, H, W)` of a state.
        latents: states are an autoencoder's latents, not pixels.
        uniforms: how many random numbers augment a sample.
    """

    labels: Tensor
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    latents: bool
    uniforms: int

    def __len__(self) -> int: ...

    def __getitem__(self, indices: list[int]) -> Tensor:
        """The samples as they are stored, `[B, ...]`."""

    def states(self, raw: Tensor, uniforms: Tensor) -> Tensor:
        """States `[B, C, H, W]` float32 (pixels in [-1, 1]) of stored samples; `uniforms [B, uniforms]` in [0, 1)."""


def open_data(config: DataSection) -> TrainingData:
    """The data that the section describes.

    Raises:
        BadConfig: they cannot be read, or are not what the kind wants.
    """
    try:
        return DATA[config.kind](config)
    except (OSError, KeyError) as error:
        raise BadConfig(f"cannot read the {config.kind} data {config.path}: {error}") from error


class ImageData:
    """8-bit images `[B, C, H, W]`; the part of `TrainingData` that folders and arrays share."""

    labels: Tensor
    latents = False

    def __init__(self, *, flip: bool) -> None:
        self.uniforms = int(flip)

    def __len__(self) -> int:
        return len(self.labels)

    def states(self, raw: Tensor, uniforms: Tensor) -> Tensor:
        """Pixels in [-1, 1], half of them mirrored if wanted."""
        x = raw.float() / 127.5 - 1
        if not self.uniforms:
            return x
        return torch.where((uniforms[:, 0] < 0.5)[:, None, None, None], x.flip(-1), x)


class NpzImages(ImageData):
    """Arrays `images [N, H, W, C]` uint8, `labels [N]` int, and, if there are any, `classes [K]` of names."""

    def __init__(self, arrays: dict[str, np.ndarray], *, flip: bool) -> None:
        super().__init__(flip=flip)
        images = arrays["images"]
        if images.dtype != np.uint8 or images.ndim != 4:
            raise BadConfig(f"images must be [N, H, W, C] uint8, not {images.dtype} of shape {images.shape}")
        self._images = torch.from_numpy(images)
        self.labels, self.classes = _labels(arrays, len(images))
        self.shape: tuple[int, int, int] = (images.shape[3], images.shape[1], images.shape[2])

    def __getitem__(self, indices: list[int]) -> Tensor:
        """`[B, C, H, W]` uint8."""
        return self._images[indices].permute(0, 3, 1, 2)


class NpzLatents:
    """Arrays `latents [N, C, H, W]` float, as the network shall see them (scaled), and `labels`, `classes` as above."""

    latents = True
    uniforms = 0

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        latents = arrays["latents"]
        if latents.dtype.kind != "f" or latents.ndim != 4:
            raise BadConfig(f"latents must be [N, C, H, W] float, not {latents.dtype} of shape {latents.shape}")
        self._latents = torch.from_numpy(latents)
        self.labels, self.classes = _labels(arrays, len(latents))
        self.shape: tuple[int, int, int] = (latents.shape[1], latents.shape[2], latents.shape[3])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """`[B, C, H, W]` in the stored precision."""
        return self._latents[indices]

    def states(self, raw: Tensor, uniforms: Tensor) -> Tensor:
        """The latents in float32."""
        return raw.float()


class Folder(ImageData):
    """One sub-folder of images a class, in the order of their names; nested folders belong to the class."""

    def __init__(self, root: Path, size: int, *, flip: bool) -> None:
        super().__init__(flip=flip)
        self._size = size
        self.shape: tuple[int, int, int] = (3, size, size)
        self.classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
        found = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((root / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        if not found:
            raise BadConfig(f"{root} has no sub-folder with images ({', '.join(sorted(SUFFIXES))})")
        self._paths = [path for path, _ in found]
        self.labels = torch.tensor([label for _, label in found])

    def __getitem__(self, indices: list[int]) -> Tensor:
        """`[B, 3, size, size]` uint8."""
        return torch.stack([read_image(self._paths[index], self._size) for index in indices])


def read_image(path: Path, size: int) -> Tensor:
    """An image file as `[3, size, size]` uint8: scaled so that its shorter side fits, and cut to its centre.

    Halving by boxes first and then one bicubic step, as ADM (arXiv 2105.05233) and SiT prepare ImageNet.
    """
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), resample=Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), resample=Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    pixels = np.asarray(image)[top : top + size, left : left + size]
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def _open_npz(config: DataSection) -> TrainingData:
    with np.load(config.path, allow_pickle=False) as stored:
        arrays = dict(stored)
    if "latents" not in arrays:
        return NpzImages(arrays, flip=config.flip)
    if config.flip:
        raise BadConfig("latents cannot be mirrored: flip the images before they are encoded")
    return NpzLatents(arrays)


def _labels(arrays: dict[str, np.ndarray], samples: int) -> tuple[Tensor, tuple[str, ...]]:
    labels = torch.from_numpy(arrays["labels"]).long()
    if labels.shape != (samples,) or samples == 0:
        raise BadConfig(f"there must be one label a sample, not {tuple(labels.shape)} for {samples}")
    most = int(labels.max())
    classes = tuple(map(str, arrays["classes"])) if "classes" in arrays else tuple(map(str, range(most + 1)))
    if int(labels.min()) < 0 or most >= len(classes):
        raise BadConfig(f"labels must be in [0, {len(classes)}), not {int(labels.min())} to {most}")
    return labels, classes


DATA: dict[str, Callable[[DataSection], TrainingData]] = {
    "folder": lambda config: Folder(config.path, config.size, flip=config.flip),
    "npz": _open_npz,
    "glyphs": lambda config: GlyphTrainingData(config.path),
}
