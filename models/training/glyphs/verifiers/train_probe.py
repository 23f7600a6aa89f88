"""Train the judge of attributes.

`python -m sitsearch.models.training.glyphs.verifiers.train_probe OUT.safetensors NPZ...`.

Prints how often it is right about each attribute on the held-out families, which bounds what a study can find out.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sitsearch.models.training.glyphs.verifiers.captions import Glyph
from sitsearch.models.training.glyphs.verifiers.fit import fit, save
from sitsearch.models.training.glyphs.verifiers.probe import READ, AttributeProbe
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs

IGNORED = -100


def labels_of(data: StyledGlyphs) -> dict[str, Tensor]:
    """The values of every attribute in `READ`, `[N]` int64, `IGNORED` where one is not known."""
    said = [data.description(i, 0) for i in range(len(data))]

    def number(glyph: Glyph, name: str) -> int:
        value = getattr(glyph, name)
        return IGNORED if value is None else READ[name].index(value)

    return {name: torch.tensor([number(glyph, name) for glyph in said]) for name in READ}


def agreement(judged: list[Glyph], true: list[Glyph]) -> dict[str, float]:
    """Share of the pictures that were judged rightly, attribute by attribute, where the truth is known."""
    hits: dict[str, list[bool]] = defaultdict(list)
    for found, known in zip(judged, true, strict=True):
        for name, value in vars(known).items():
            if value is not None:
                hits[name].append(getattr(found, name) == value)
    return {name: sum(found) / len(found) for name, found in hits.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    data = StyledGlyphs(args.data)
    labels, probe = labels_of(data), AttributeProbe().to(memory_format=torch.channels_last)

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.multinomial(data.weights, args.batch, generator=generator)
        pair = torch.randint(len(data.pairs), (args.batch,), generator=generator)
        images = data.images(index, pair, generator, augment=True)
        with torch.autocast("cpu", torch.bfloat16):
            logits = probe(images)
        losses = [
            F.cross_entropy(found.float(), labels[name][index], ignore_index=IGNORED, label_smoothing=0.05)
            for name, found in logits.items()
        ]
        return torch.stack(losses).mean()

    fit(probe, loss, steps=args.steps, lr=args.lr, seed=args.seed)
    save(probe, args.out)
    generator = torch.Generator().manual_seed(0)
    for said, paths in (("families of the first file", args.data[:1]), ("all families", args.data)):
        held = StyledGlyphs(paths, held_out=True)
        pair = torch.randint(len(held.pairs), (len(held),), generator=generator)
        images = held.images(torch.arange(len(held)), pair, generator)
        judged = [glyph for part in images.split(256) for glyph in probe.judge(part)]
        true = [held.description(i, p) for i, p in enumerate(pair.tolist())]
        print(said, {name: round(share, 3) for name, share in agreement(judged, true).items()})


if __name__ == "__main__":
    main()
