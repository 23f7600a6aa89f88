"""Coloured glyph images, drawn on the fly from the masks that `render.py` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.training.glyphs.families import CLASSES

#: Named colours (sRGB in [0, 1]); a caption may use the names.
PALETTE: dict[str, tuple[float, float, float]] = {
    "black": (0.05, 0.05, 0.05),
    "white": (0.96, 0.96, 0.96),
    "gray": (0.55, 0.55, 0.55),
    "red": (0.85, 0.12, 0.12),
    "orange": (0.96, 0.55, 0.10),
    "yellow": (0.97, 0.86, 0.20),
    "green": (0.13, 0.60, 0.22),
    "cyan": (0.25, 0.80, 0.85),
    "blue": (0.12, 0.30, 0.85),
    "purple": (0.48, 0.16, 0.66),
    "pink": (0.97, 0.60, 0.75),
    "brown": (0.42, 0.24, 0.10),
}
COLOR_JITTER = 0.05
MIN_CONTRAST = 0.3
LUMA = torch.tensor([0.299, 0.587, 0.114])


class GlyphData:
    """The masks of one split, from which batches of random colours are drawn.

    Args:
        path: NPZ written by `sitsearch.models.training.glyphs.render`.
        held_out: the held-out families instead of the training ones.
    """

    def __init__(self, path: str | Path, *, held_out: bool = False) -> None:
        with np.load(path) as arrays:
            self.faces: list[dict[str, Any]] = json.loads(str(arrays["faces"]))
            keep = np.array([face["held_out"] for face in self.faces])[arrays["face"]] == held_out
            self.masks = torch.from_numpy(arrays["masks"][keep])
            self.labels = torch.from_numpy(arrays["label"][keep]).long()
            self.face = torch.from_numpy(arrays["face"][keep]).long()
        palette = torch.tensor(list(PALETTE.values()))
        gap = ((palette @ LUMA)[:, None] - (palette @ LUMA)[None, :]).abs()
        self._palette = palette
        #: (foreground, background) palette indices with enough contrast, `[P, 2]`
        self.pairs = (gap >= MIN_CONTRAST).nonzero()

    def __len__(self) -> int:
        return len(self.masks)

    def batch(self, size: int, generator: torch.Generator, *, warp: float = 0.0) -> tuple[Tensor, Tensor]:
        """Random glyphs: images `[size, 3, 32, 32]` float32 in [0, 1] and labels `[size]`."""
        index = torch.randint(len(self), (size,), generator=generator)
        return self.images(index, generator, warp=warp), self.labels[index]

    def images(self, index: Tensor, generator: torch.Generator, *, warp: float = 0.0) -> Tensor:
        """The glyphs at `index` in random colours; `warp` is the largest relative change of scale, shear and place."""
        size = len(index)
        mask = self.masks[index].float().div_(255).unsqueeze(1)
        if warp:
            noise = (torch.rand(size, 2, 3, generator=generator) * 2 - 1) * warp
            mask = F.grid_sample(
                mask, F.affine_grid(torch.eye(2, 3) + noise, list(mask.shape), align_corners=False), align_corners=False
            )
        pair = torch.randint(len(self.pairs), (size,), generator=generator)
        return self.paint(mask, pair, torch.rand(size, 2, 3, generator=generator))

    def paint(self, mask: Tensor, pair: Tensor, jitter: Tensor) -> Tensor:
        """Masks `[B, 1, 32, 32]` in [0, 1] in the colours of `pairs[pair]`, moved by `jitter [B, 2, 3]` in [0, 1)."""
        device = mask.device
        colors = self._palette[self.pairs[pair.cpu()]].to(device) + (jitter * 2 - 1) * COLOR_JITTER
        ink, paper = colors.clamp(0, 1)[..., None, None].unbind(1)
        return paper + (ink - paper) * mask


class GlyphTrainingData:
    """The training families in random colours; see `sitsearch.models.training.data.TrainingData`."""

    uniforms = 7  # a pair of colours, and a jitter of each channel of each
    shape = (3, 32, 32)
    latents = False

    def __init__(self, path: Path) -> None:
        self.glyphs = GlyphData(path)
        self.labels = self.glyphs.labels
        self.classes = tuple(CLASSES)

    def __len__(self) -> int:
        return len(self.glyphs)

    def __getitem__(self, indices: list[int]) -> Tensor:
        """Masks `[B, 32, 32]` uint8."""
        return self.glyphs.masks[indices]

    def states(self, raw: Tensor, uniforms: Tensor) -> Tensor:
        """`[B, 3, 32, 32]` in [-1, 1]."""
        pairs = len(self.glyphs.pairs)
        pair = (uniforms[:, 0] * pairs).long().clamp(max=pairs - 1)  # rounding can make a product of `pairs`
        images = self.glyphs.paint(raw.float().div(255).unsqueeze(1), pair, uniforms[:, 1:].reshape(-1, 2, 3))
        return images * 2 - 1
