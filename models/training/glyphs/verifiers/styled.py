"""Glyphs of known style: pictures, and what can be said of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.training.glyphs.dataset import PALETTE, GlyphData
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import Glyph, case_of, describe_all

COLOR_NAMES = tuple(PALETTE)


class StyledGlyphs:
    """The glyphs of one split of several NPZ files, drawn in random colours together with their descriptions.

    Args:
        paths: NPZs written by `sitsearch.models.training.glyphs.render` or `.verifiers.styles`.
        held_out: the held-out families instead of the training ones.

    Attributes:
        weights: `[N]`, how often each glyph is drawn: rare categories more often, by the square root of their share.
    """

    def __init__(self, paths: Sequence[str | Path], *, held_out: bool = False) -> None:
        parts = [GlyphData(path, held_out=held_out) for path in paths]
        self._painter = parts[0]
        self.masks = torch.cat([part.masks for part in parts])
        self.labels = torch.cat([part.labels for part in parts])
        offsets = [sum(len(part.faces) for part in parts[:i]) for i in range(len(parts))]
        self._face = torch.cat([part.face + offset for part, offset in zip(parts, offsets, strict=True)])
        self._styles = [style for part in parts for style in describe_all(part.faces)]
        self.pairs: Tensor = parts[0].pairs
        categories = [self._styles[face].category for face in self._face.tolist()]
        counts = Counter(categories)
        self.weights = torch.tensor([counts[category] ** -0.5 for category in categories])

    def __len__(self) -> int:
        return len(self.masks)

    def description(self, index: int, pair: int) -> Glyph:
        """All that is known of glyph `index` in the colours of `pairs[pair]`."""
        character = CLASSES[int(self.labels[index])]
        ink, paper = self.pairs[pair].tolist()
        return replace(
            self._styles[int(self._face[index])],
            character=character,
            case=case_of(character),
            ink=COLOR_NAMES[ink],
            paper=COLOR_NAMES[paper],
        )

    def images(self, index: Tensor, pair: Tensor, generator: torch.Generator, *, augment: bool = False) -> Tensor:
        """Pictures `[B, 3, 32, 32]` in [0, 1] of the glyphs at `index [B]` in the colours of `pair [B]`.

        Augmentation scales, moves, blurs and adds noise; it never shears or rotates, for the slant is a label.
        """
        size = len(index)
        mask = self.masks[index].float().div_(255).unsqueeze(1)
        if augment:
            theta = torch.eye(2, 3).repeat(size, 1, 1)
            theta += (torch.rand(size, 2, 3, generator=generator) * 2 - 1) * torch.tensor(
                [[0.06, 0.0, 0.06], [0.0, 0.06, 0.06]]
            )
            mask = F.grid_sample(mask, F.affine_grid(theta, list(mask.shape), align_corners=False), align_corners=False)
            blurred = F.avg_pool2d(F.pad(mask, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
            mask = mask.lerp(blurred, torch.rand(size, 1, 1, 1, generator=generator).pow(2) * 0.5)
        images = self._painter.paint(mask, pair, torch.rand(size, 2, 3, generator=generator))
        if augment:
            strength = torch.rand(size, 1, 1, 1, generator=generator).pow(2) * 0.08
            images = (images + torch.randn(size, 1, 32, 32, generator=generator) * strength).clamp(0, 1)
        return images
