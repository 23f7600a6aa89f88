"""Fit the aesthetic head.

`python -m sitsearch.models.training.glyphs.verifiers.train_aesthetic CLIP_FOLDER OUT NPZ...`.

A linear head on the image embeddings of the CLIP of glyphs, brought to length 1, in the format of LAION's
aesthetic-predictor (`weight`, `bias`). It is a ridge regression on grades: `CLEAN` for a clean picture, and for a
spoilt one from `GOOD` down to `BAD` as the damage grows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sitsearch.models.training.glyphs.verifiers.degrade import DEGRADATIONS
from sitsearch.models.training.glyphs.verifiers.styled import StyledGlyphs
from sitsearch.models.verifiers.clip import ClipScore, unit

CLEAN, GOOD, BAD = 9.0, 6.0, 2.0
BATCH = 256


def clean_batch(data: StyledGlyphs, generator: torch.Generator, size: int = BATCH) -> Tensor:
    """Random clean pictures `[size, 3, 32, 32]` in [0, 1]."""
    index = torch.randint(len(data), (size,), generator=generator)
    pair = torch.randint(len(data.pairs), (size,), generator=generator)
    return data.images(index, pair, generator)


def ridge(features: Tensor, grades: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Weight `[1, D]` and bias `[1]` of least squares on features `[N, D]`, in float64; the bias is not penalised."""
    x, y = features.double(), grades.double()
    centred = x - x.mean(dim=0)
    gram = centred.T @ centred + penalty * torch.eye(x.shape[1], dtype=torch.float64)
    weight = torch.linalg.solve(gram, centred.T @ (y - y.mean()))
    return weight[None].float(), (y.mean() - x.mean(dim=0) @ weight)[None].float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--batches", type=int, default=60, help=f"of {BATCH} clean pictures")
    parser.add_argument("--penalty", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=4)
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(args.seed)
    data, clip = StyledGlyphs(args.data), ClipScore(args.clip)
    features, grades = [], []
    for _ in range(args.batches):
        clean = clean_batch(data, generator)
        features.append(unit(clip.features(clean)))
        grades.append(torch.full((BATCH,), CLEAN))
        for part, degrade in zip(clean.chunk(len(DEGRADATIONS)), DEGRADATIONS.values(), strict=True):
            severity = torch.rand(len(part), generator=generator)
            features.append(unit(clip.features(degrade(part, severity, generator))))
            grades.append(GOOD + (BAD - GOOD) * severity)
    weight, bias = ridge(torch.cat(features), torch.cat(grades), args.penalty)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({"weight": weight, "bias": bias}, args.out)


if __name__ == "__main__":
    main()
