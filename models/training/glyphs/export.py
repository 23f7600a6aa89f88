"""Ship a training run.

`python -m sitsearch.models.training.glyphs.export EMA.safetensors CLASSIFIER.safetensors GLYPHS.npz`.

Writes into `models/checkpoints/`: the generator in bfloat16, the classifier in float16, and `glyphs_stats.npz`, the
mean and covariance of the classifier's features over the training glyphs (reference of FID) and their Inception Score.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from sitsearch.models.catalog import ROOT, load_verifier
from sitsearch.models.training.glyphs.dataset import GlyphData
from sitsearch.models.verifiers.classifier import GlyphClassifier
from sitsearch.models.verifiers.inception_oracle import inception_score

CHECKPOINTS = ROOT / "checkpoints"
REFERENCE_IMAGES = 31_000


def reference_statistics(data: GlyphData, classifier: GlyphClassifier) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean `[D]` and covariance `[D, D]` (float64) of the features, and the Inception Score, over random colourings."""
    generator = torch.Generator().manual_seed(2)
    features, log_probs = [], []
    for _ in range(REFERENCE_IMAGES // 500):
        images, _ = data.batch(500, generator)
        features.append(classifier.features(images).double())
        log_probs.append(classifier.log_probabilities(images).double())
    all_features, all_logs = torch.cat(features).numpy(), torch.cat(log_probs)
    return all_features.mean(0), np.cov(all_features, rowvar=False), inception_score(all_logs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generator", type=Path)
    parser.add_argument("classifier", type=Path)
    parser.add_argument("data", type=Path)
    args = parser.parse_args()
    CHECKPOINTS.mkdir(exist_ok=True)
    save_file({k: v.bfloat16() for k, v in load_file(args.generator).items()}, CHECKPOINTS / "glyphs.safetensors")
    weights = {k: v.half() if v.is_floating_point() else v for k, v in load_file(args.classifier).items()}
    save_file(weights, CHECKPOINTS / "glyph_classifier.safetensors")
    figures = json.loads(args.classifier.with_suffix(".json").read_text())
    classifier = load_verifier("classifier")
    assert isinstance(classifier, GlyphClassifier)
    mu, sigma, real = reference_statistics(GlyphData(args.data), classifier)
    np.savez_compressed(CHECKPOINTS / "glyphs_stats.npz", mu=mu, sigma=sigma, inception_score=real)
    for path in sorted(CHECKPOINTS.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")
    print(f"classifier: {figures}")


if __name__ == "__main__":
    main()
