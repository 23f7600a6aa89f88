"""A judge of a glyph's attributes that shares nothing with CLIP but the typefaces: what a study reports by.

Colours are measured. From them follows a mask of where the ink is, and all else is read off that mask by a small
network of its own, trained on labels alone, which sees neither colours nor captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sitsearch.models.card_files import ROOT
from sitsearch.models.training.glyphs.dataset import PALETTE
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import VOCABULARY, Glyph, case_of
from sitsearch.models.verifiers.glyph_net import GlyphNet

#: What the network reads -> the values it tells apart.
READ: dict[str, tuple[str, ...]] = {"character": tuple(CLASSES)} | {
    name: tuple(VOCABULARY[name]) for name in ("weight", "slant", "category")
}
PROBE = ROOT / "checkpoints" / "glyph_probe.safetensors"
#: Pixels that are taken for pure ink, and channels of the network's first stage.
INKIEST, WIDTH = 6, 32
#: Ink and paper closer than this (root of summed squares, sRGB in [0, 1]) make no mask.
LEAST_DISTANCE = 0.05


def measured_colors(images: Tensor) -> tuple[Tensor, Tensor]:
    """Ink and paper `[B, 3]` of images `[B, 3, H, W]` in [0, 1].

    Paper is the median of the outermost pixels; ink the mean of the `INKIEST` pixels that differ most from it.
    """
    border = torch.cat([images[:, :, 0], images[:, :, -1], images[:, :, :, 0], images[:, :, :, -1]], dim=2)
    paper = border.median(dim=2).values
    flat = images.flatten(2)
    inkiest = (flat - paper[:, :, None]).square().sum(dim=1).topk(INKIEST, dim=1).indices
    return flat.gather(2, inkiest[:, None].expand(-1, 3, -1)).mean(dim=2), paper


def color_names(colors: Tensor) -> list[str]:
    """The name in the palette that lies nearest to each of `colors [B, 3]`."""
    palette = colors.new_tensor(list(PALETTE.values()))
    names = list(PALETTE)
    return [names[i] for i in torch.cdist(colors, palette).argmin(dim=1).tolist()]


def mask_of(images: Tensor) -> Tensor:
    """`[B, 1, H, W]` in [0, 1], 1 where the ink is: the place between paper and ink of each pixel's colour."""
    ink, paper = measured_colors(images)
    axis = ink - paper
    length = axis.square().sum(dim=1).clamp(min=LEAST_DISTANCE**2)
    along = torch.einsum("bchw,bc->bhw", images - paper[:, :, None, None], axis)
    return (along / length[:, None, None]).clamp(0, 1)[:, None]


class AttributeProbe(nn.Module):
    """Images `[B, 3, 32, 32]` in [0, 1] to logits of every attribute in `READ`, `{name: [B, values]}`."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        self.net = GlyphNet(sum(map(len, READ.values())), width)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        logits = self.net(mask_of(images).expand(-1, 3, -1, -1))
        return dict(zip(READ, logits.split([len(values) for values in READ.values()], dim=1), strict=True))

    @torch.inference_mode()
    def judge(self, images: Tensor) -> list[Glyph]:
        """What images `[B, 3, 32, 32]` in [0, 1] show, as far as it can tell: every attribute gets a value."""
        columns: dict[str, Sequence[str]] = {}
        for name, logits in self(images).items():
            columns[name] = [READ[name][i] for i in logits.argmax(dim=1).tolist()]
        columns["case"] = [case_of(character) for character in columns["character"]]
        columns["ink"], columns["paper"] = map(color_names, measured_colors(images))
        return [Glyph(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True)]


def load_probe(path: Path = PROBE) -> AttributeProbe:
    """The judge, as `train_probe` left it.

    Raises:
        OSError: the file is missing.
    """
    probe = AttributeProbe()
    probe.load_state_dict(load_file(path))
    return probe.eval().requires_grad_(False)
