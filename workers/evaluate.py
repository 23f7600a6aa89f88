"""How good the bundled generator is, and what search adds: `python -m workers.evaluate [--out DIR]`.

Samples every class of `glyphs` several times at 50 NFE and guidance 1.5, and prints how many the classifier reads
as their class, their mean log-probability, FID and Inception Score in the classifier's feature space, and the same
accuracy and log-probability for the best of the first 1, 2, 4, ... candidates of each class. With `--out`, writes
`contact_sheet.png` (single samples beside winners), and `quality.json`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from models.catalog import ROOT, load_generator, load_verifier, model_card
from models.condition import Condition
from models.verifiers.classifier import GlyphClassifier
from workers.engine import Engine
from workers.jobs.recipe import Integrate, Recipe
from workers.jobs.schemas import SamplerChoice
from workers.local import sample_all
from workers.trajectory import Order

STEPS, GUIDANCE = 25, 1.5
SHEET_COLUMNS = 8


def frechet_distance(mu: np.ndarray, sigma: np.ndarray, mu_ref: np.ndarray, sigma_ref: np.ndarray) -> float:
    """|mu - mu_ref|^2 + tr(sigma + sigma_ref - 2 (sigma sigma_ref)^(1/2)) (Heusel et al. 2017, eq. 6)."""
    eigenvalues = np.linalg.eigvals(sigma @ sigma_ref)
    root_trace = np.sqrt(np.clip(eigenvalues.real, 0, None)).sum()
    return float(((mu - mu_ref) ** 2).sum() + np.trace(sigma) + np.trace(sigma_ref) - 2 * root_trace)


def inception_score(log_probs: Tensor) -> float:
    """exp E[KL(p(y|x) || p(y))] of log-probabilities `[N, classes]` (Salimans et al. 2016)."""
    marginal = log_probs.exp().mean(0).log()
    return float((log_probs.exp() * (log_probs - marginal)).sum(1).mean().exp())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=16, help="samples a class")
    parser.add_argument("--batch", type=int, default=64, help="network rows of one forward")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    card = model_card("glyphs")
    classifier = load_verifier("classifier")
    assert isinstance(classifier, GlyphClassifier)
    engine = Engine(load_generator("glyphs", dtype=getattr(torch, args.dtype)), batch=args.batch, deterministic=False)
    sampler = SamplerChoice(method="heun", steps=STEPS, guidance=GUIDANCE)
    images, logs = [], []
    for label in range(len(card.classes)):
        whole = Integrate(to=1.0, steps=STEPS)
        recipes = [Recipe(seed=label, round=0, index=i).then(whole) for i in range(args.candidates)]
        samples = sample_all(engine, [Order(recipe, Condition(label), sampler) for recipe in recipes])
        images.append(torch.stack([s.image for s in samples]))
        logs.append(classifier.log_probabilities(images[-1].permute(0, 3, 1, 2).float() / 255))
    log_probs = torch.stack(logs)  # [classes, candidates, classes]
    labels = torch.arange(len(card.classes))
    scores = log_probs[labels, :, labels]  # [classes, candidates]
    correct = log_probs.argmax(-1) == labels[:, None]
    print(f"{len(labels)} classes x {args.candidates} samples, Heun {STEPS} steps, guidance {GUIDANCE}, {args.dtype}")
    print("best of   accuracy   mean log-probability")
    table, count = [], 1
    while count <= args.candidates:
        # Each class's candidates fall into groups of `count`; the winner of every group is one draw of "best of count".
        groups = args.candidates // count
        grouped = scores[:, : groups * count].reshape(len(labels), groups, count)
        winner = grouped.argmax(-1, keepdim=True)
        hits = correct[:, : groups * count].reshape(len(labels), groups, count).gather(-1, winner)
        row = {
            "candidates": count,
            "accuracy": float(hits.float().mean()),
            "log_probability": float(grouped.gather(-1, winner).mean()),
        }
        table.append(row)
        print(f"{count:7d}   {row['accuracy']:8.4f}   {row['log_probability']:.4f}")
        count *= 2
    pixels = torch.cat(images).permute(0, 3, 1, 2).float() / 255
    features = classifier.features(pixels).double().numpy()
    with np.load(ROOT / "checkpoints" / "glyphs_stats.npz") as stats:
        fid = frechet_distance(features.mean(0), np.cov(features, rowvar=False), stats["mu"], stats["sigma"])
        real_is = float(stats["inception_score"])
    score = inception_score(log_probs.flatten(0, 1).double())
    print(f"FID {fid:.3f}, IS {score:.2f} (real glyphs {real_is:.2f}), {len(pixels)} samples, classifier features")
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        singles = [torch.cat(list(rows[:SHEET_COLUMNS]), dim=1) for rows in images]
        winners = [rows[best] for rows, best in zip(images, scores.argmax(1), strict=True)]
        gap = torch.full((32, 8, 3), 255, dtype=torch.uint8)
        strips = [torch.cat([single, gap, winner], dim=1) for single, winner in zip(singles, winners, strict=True)]
        half = (len(strips) + 1) // 2
        sheet = torch.cat([torch.cat(strips[:half]), torch.cat(strips[half:])], dim=1)
        Image.fromarray(sheet.numpy()).resize((sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST).save(
            args.out / "contact_sheet.png"
        )
        figures = {"best_of": table, "fid": fid, "inception_score": score, "samples": len(pixels)}
        (args.out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
