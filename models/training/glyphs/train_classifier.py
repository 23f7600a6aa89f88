"""Train the glyph classifier: `python -m sitsearch.models.training.glyphs.train_classifier GLYPHS.npz OUT.safetensors`.

Prints the accuracy on the held-out families, and writes it beside the weights as JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from sitsearch.models.training.glyphs.dataset import GlyphData
from sitsearch.models.verifiers.glyph_net import GlyphNet


@torch.no_grad()
def accuracy(net: nn.Module, data: GlyphData, *, colorings: int = 2, batch: int = 512) -> float:
    """Share of the glyphs of `data` that `net` reads correctly, over random colours."""
    net.eval()
    generator = torch.Generator().manual_seed(1)
    correct = 0
    for _ in range(colorings):
        for index in torch.arange(len(data)).split(batch):
            correct += int((net(data.images(index, generator)).argmax(1) == data.labels[index]).sum())
    return correct / (len(data) * colorings)


def train(
    data: GlyphData, net: nn.Module, *, steps: int, batch: int, lr: float, seed: int, report: int = 200
) -> nn.Module:
    """Cross-entropy with label smoothing, AdamW, one-cycle schedule; images warped and slightly noised."""
    generator = torch.Generator().manual_seed(seed)
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.15)
    start = time.monotonic()
    net.train()
    for step in range(steps):
        images, labels = data.batch(batch, generator, warp=0.08)
        images += (
            torch.randn(images.shape, generator=generator) * 0.05 * torch.rand(batch, 1, 1, 1, generator=generator)
        )
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(images.to(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if (step + 1) % report == 0:
            print(f"step {step + 1} loss {loss.item():.3f} {time.monotonic() - start:.0f} s", flush=True)
    return net


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    net = GlyphNet(width=args.width)
    train(GlyphData(args.data), net, steps=args.steps, batch=args.batch, lr=args.lr, seed=args.seed)
    figures = {
        "held_out_accuracy": round(accuracy(net, GlyphData(args.data, held_out=True)), 4),
        "train_accuracy": round(accuracy(net, GlyphData(args.data), colorings=1), 4),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, args.out)
    args.out.with_suffix(".json").write_text(json.dumps(figures, indent=2) + "\n")
    print(figures)


if __name__ == "__main__":
    main()
