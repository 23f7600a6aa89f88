"""Train the DINOv2-class reader.

`python -m sitsearch.models.training.glyphs.verifiers.train_dinov2 GLYPHS.npz OUT_FOLDER`.

transformers' `Dinov2ForImageClassification` in a tiny configuration, trained on labels alone. The folder has
transformers' own format, with the pre-processing that `AutoImageProcessor` reads.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BitImageProcessor, Dinov2Config, Dinov2ForImageClassification

from sitsearch.models.training.glyphs.dataset import GlyphData
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.fit import fit

CONFIG = Dinov2Config(
    image_size=32,
    patch_size=8,
    hidden_size=96,
    num_hidden_layers=4,
    num_attention_heads=3,
    mlp_ratio=4,
    drop_path_rate=0.05,
    id2label=dict(enumerate(CLASSES)),
    label2id={character: i for i, character in enumerate(CLASSES)},
)


def preprocessing() -> BitImageProcessor:
    """Squash to 32x32 and bring to [-1, 1]."""
    return BitImageProcessor(
        do_resize=True,
        size={"height": 32, "width": 32},
        resample=2,
        do_center_crop=False,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data = GlyphData(args.data)
    model = Dinov2ForImageClassification(CONFIG)
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layer" in name]

    def loss(generator: torch.Generator) -> Tensor:
        images, labels = data.batch(args.batch, generator, warp=0.08)
        strength = torch.rand(args.batch, 1, 1, 1, generator=generator) * 0.05
        images = images + torch.randn(args.batch, 1, 32, 32, generator=generator) * strength
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(pixel_values=images * 2 - 1).logits
        return F.cross_entropy(logits.float(), labels, label_smoothing=0.05)

    checkpoint = args.out / "part.safetensors"
    fit(model, loss, steps=args.steps, lr=args.lr, seed=args.seed, matrices=matrices, checkpoint=checkpoint)
    nn.Module.half(model)
    model.save_pretrained(args.out)
    preprocessing().save_pretrained(args.out)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
