"""A small labelled set for tests and benchmarks.

`python -m sitsearch.models.training.glyphs.verifiers.held_out OUT.npz NPZ...`.

Some glyphs of every character from the held-out families, in random colours, as an NPZ with

    images [N, 32, 32, 3] uint8, labels [N] int64 (class of each), said: JSON list of `captions.Glyph`'s fields.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--each", type=int, default=4, help="glyphs of a character")
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    data = StyledGlyphs(args.data, held_out=True)
    index = torch.cat(
        [
            torch.multinomial(data.weights * (data.labels == label), args.each, generator=generator)
            for label in range(len(CLASSES))
        ]
    )
    pair = torch.randint(len(data.pairs), (len(index),), generator=generator)
    images = data.images(index, pair, generator).mul(255).round().byte().permute(0, 2, 3, 1)
    said = [asdict(data.description(i, p)) for i, p in zip(index.tolist(), pair.tolist(), strict=True)]
    np.savez_compressed(
        args.out,
        allow_pickle=False,
        images=images.numpy(),
        labels=data.labels[index].numpy(),
        said=np.array(json.dumps(said)),
    )


if __name__ == "__main__":
    main()
