"""Train the auditor: `python -m sitsearch.models.training.glyphs.verifiers.train_auditor GLYPHS.npz OUT.safetensors`.

Everything but the typefaces is its own: architecture, seed, colours (any two far enough apart, not the palette's) and
augmentation (blur, brightness, noise and an erased patch), so that it does not share the selector's habits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.training.glyphs.dataset import LUMA, GlyphData
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.train_classifier import accuracy
from sitsearch.models.training.glyphs.verifiers.fit import fit, save
from sitsearch.models.verifiers.auditor_net import AuditorNet

WIDTHS, DEPTHS = (64, 128, 256), (1, 1, 1)
LEAST_CONTRAST = 0.15


def augmented(masks: Tensor, generator: torch.Generator) -> Tensor:
    """Masks `[B, 1, 32, 32]` in [0, 1] to images `[B, 3, 32, 32]` in any colours, moved and spoilt a little."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.rand(*shape, generator=generator) * (high - low) + low

    size = len(masks)
    angle, scale = uniform(size, low=-0.1, high=0.1), uniform(size, low=0.93, high=1.12)
    cos, sin, zero = scale * angle.cos(), scale * angle.sin(), torch.zeros(size)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(size, 2, 3)
    theta[:, :, 2] = uniform(size, 2, low=-0.1, high=0.1)
    masks = F.grid_sample(masks, F.affine_grid(theta, list(masks.shape), align_corners=False), align_corners=False)
    blurred = F.avg_pool2d(F.pad(masks, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    masks = masks.lerp(blurred, uniform(size, 1, 1, 1, high=0.6))
    corner = torch.randint(0, 28, (size, 2), generator=generator)
    side = torch.randint(2, 8, (size, 1), generator=generator)
    place = torch.arange(32)
    inside = (place >= corner[..., None]) & (place < (corner + side)[..., None])
    erased = inside[:, 0, :, None] & inside[:, 1, None, :] & (uniform(size, 1, 1) < 0.25)
    masks = torch.where(erased[:, None], uniform(size, 1, 1, 1).round(), masks)
    ink, paper = uniform(size, 3), uniform(size, 3)
    flat = ((ink - paper) @ LUMA).abs() < LEAST_CONTRAST
    ink[flat] = (paper[flat] @ LUMA < 0.5).float()[:, None].expand(-1, 3)
    image = paper[..., None, None] + (ink - paper)[..., None, None] * masks
    return (image + torch.randn(size, 1, 32, 32, generator=generator) * uniform(size, 1, 1, 1, high=0.08)).clamp(0, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=20_250_109)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data = GlyphData(args.data)
    net = AuditorNet(len(CLASSES), WIDTHS, DEPTHS).to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(data), (args.batch,), generator=generator)
        images = augmented(data.masks[index].float().div_(255).unsqueeze(1), generator)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images.to(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), data.labels[index], label_smoothing=0.1)

    fit(net, loss, steps=args.steps, lr=args.lr, seed=args.seed)
    save(net, args.out)
    print({"held_out_accuracy": round(accuracy(net, GlyphData(args.data, held_out=True)), 4)})


if __name__ == "__main__":
    main()
