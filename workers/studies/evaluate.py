"""How good the bundled generator is, and what search adds: `python -m sitsearch.workers.studies.evaluate [--out DIR]`.

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

from sitsearch.models.catalog import ROOT, load_generator, load_verifier, model_card
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.classifier import GlyphClassifier
from sitsearch.models.verifiers.frechet import FrechetReference
from sitsearch.models.verifiers.inception_oracle import inception_score
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.judge import pixels
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all

STEPS, GUIDANCE = 25, 1.5
SHEET_COLUMNS = 8


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
        logs.append(classifier.log_probabilities(pixels(images[-1])))
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
    features = classifier.features(pixels(torch.cat(images)))
    with np.load(ROOT / "checkpoints" / "glyphs_stats.npz") as stats:
        reference = FrechetReference(torch.from_numpy(stats["mu"]), torch.from_numpy(stats["sigma"]))
        fid = reference.distance(features)
        real_is = float(stats["inception_score"])
    score = inception_score(log_probs.flatten(0, 1).double())
    print(f"FID {fid:.3f}, IS {score:.2f} (real glyphs {real_is:.2f}), {len(features)} samples, classifier features")
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
        figures = {"best_of": table, "fid": fid, "inception_score": score, "samples": len(features)}
        (args.out / "quality.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
