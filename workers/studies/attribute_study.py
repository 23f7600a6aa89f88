"""Does search bind attributes? `python -m sitsearch.workers.studies.attribute_study --out docs/verifiers`.

The model of `glyphs` is told a character and nothing else. A prompt says more, such as "a bold red italic serif Q on
white", and CLIPScore selects for it. The winners are judged by what took no part in selecting, see
`sitsearch.workers.studies.attributes`.

Prints the share of winners that have what was asked, attribute by attribute, against the candidates searched, and
writes it to `attributes.json` and one seed's winners to `contact_sheet.png`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.training.glyphs.families import CLASSES
from sitsearch.models.training.glyphs.verifiers.captions import Glyph, canonical
from sitsearch.models.training.glyphs.verifiers.probe import load_probe
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.local import run_request
from sitsearch.workers.studies.attributes import ASKED, ATTRIBUTES, attributes_had

CANDIDATES = (1, 4, 16, 64, 256)
#: Candidates of a round. A smaller search draws the first of those that a larger one draws.
ROUND = 64
SELECTOR, AUDITOR = "clip_score", "auditor"


def search_for(
    engine: Engine, verifiers: dict[str, Verifier], glyph: Glyph, *, candidates: int, seed: int, sampler: dict[str, Any]
) -> tuple[Tensor, dict[str, Any]]:
    """The winner `[H, W, 3]` uint8 of random search for what `glyph` says, and its record."""
    condition = Condition(class_index=CLASSES.index(str(glyph.character)), prompt=canonical(glyph))
    request = GenerateRequest.model_validate(
        {
            "condition": {"class": glyph.character, "prompt": condition.prompt},
            "budget": {"nfe": candidates * nfe_of(sampler)},
            "verifier": SELECTOR,
            "search": {"algorithm": "random", "round_size": ROUND},
            "sampler": sampler,
            "seed": seed,
        }
    )
    found = run_request(engine, verifiers, request, conditions=[condition])
    (audit,) = Scorer(verifiers[AUDITOR], batch=1).score(found.images[:1], [condition])
    best = found.result.images[0]
    record = {
        "prompt": condition.prompt,
        "seed": seed,
        "candidates": found.result.candidates,
        "nfe": found.usage.nfe_search,
        "score": best.score,
        "audit": audit,
    }
    return found.images[0], record


def nfe_of(sampler: dict[str, Any]) -> int:
    """Evaluations of one trajectory."""
    return int(sampler["steps"]) * (2 if sampler["method"] == "heun" else 1)


def summary(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each number of candidates: NFE, mean scores, and the share of winners that have each attribute asked for."""
    rows = []
    for candidates in sorted({record["candidates"] for record in records}):
        cell = [record for record in records if record["candidates"] == candidates]
        shares = {name: statistics.fmean(record["has"][name] for record in cell) for name in ATTRIBUTES}
        rows.append(
            {
                "candidates": candidates,
                "nfe": cell[0]["nfe"],
                **shares,
                "of_six": statistics.fmean(sum(record["has"].values()) for record in cell),
                "all_six": statistics.fmean(all(record["has"].values()) for record in cell),
                "score": statistics.fmean(record["score"] for record in cell),
                "audit": statistics.fmean(record["audit"] for record in cell),
                "searches": len(cell),
            }
        )
    return rows


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """`summary` as a table in Markdown."""
    print("| candidates | NFE | " + " | ".join(ATTRIBUTES) + " | mean of six | all six | CLIPScore | auditor |")
    print("|---|---|" + "---|" * (len(ATTRIBUTES) + 4))
    for row in rows:
        shares = " | ".join(f"{row[name]:.2f}" for name in ATTRIBUTES)
        print(
            f"| {row['candidates']} | {row['nfe']} | {shares} | {row['of_six']:.2f} | {row['all_six']:.2f} "
            f"| {row['score']:.3f} | {row['audit']:.3f} |"
        )


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Tensor]]], columns: Sequence[int], *, scale: int = 3
) -> Image.Image:
    """A row of pictures `[32, 32, 3]` uint8 for each prompt, under the numbers of candidates."""
    font = ImageFont.load_default(size=15)
    cell, left, top = 32 * scale + 8, 340, 30
    sheet = Image.new("RGB", (left + cell * len(columns), top + cell * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((8, 6), "candidates:", fill="black", font=font)
    for column, count in enumerate(columns):
        draw.text((left + cell * column + cell // 2, 6), str(count), fill="black", font=font, anchor="ma")
    for row, (prompt, pictures) in enumerate(rows):
        y = top + cell * row
        draw.text((8, y + cell // 2), prompt, fill="black", font=font, anchor="lm")
        for column, picture in enumerate(pictures):
            glyph = Image.fromarray(picture.numpy()).resize((32 * scale, 32 * scale), Image.Resampling.NEAREST)
            x = left + cell * column
            draw.rectangle((x + 3, y + 3, x + cell - 4, y + cell - 4), outline="gray")
            sheet.paste(glyph, (x + 4, y + 4))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2, help="searches of each prompt; the noises are the same for all")
    parser.add_argument("--candidates", type=int, nargs="+", default=CANDIDATES)
    parser.add_argument("--method", default="euler")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=1.0)
    parser.add_argument("--batch", type=int, default=64, help="network rows of one forward")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    engine = Engine(load_generator("glyphs", dtype=torch.bfloat16), batch=args.batch, deterministic=False)
    verifiers, probe = {name: load_verifier(name) for name in (SELECTOR, AUDITOR)}, load_probe()
    sampler = {"method": args.method, "steps": args.steps, "guidance": args.guidance}
    records, sheet = [], []
    for glyph in ASKED:
        for seed in range(args.seeds):
            found = [
                search_for(engine, verifiers, glyph, candidates=count, seed=seed, sampler=sampler)
                for count in args.candidates
            ]
            pictures = [picture for picture, _ in found]
            had = attributes_had(probe, torch.stack(pictures), [glyph] * len(pictures))
            records += [{**record, "has": has} for (_, record), has in zip(found, had, strict=True)]
            if seed == 0:
                sheet.append((canonical(glyph), pictures))
        print(f"searched for {canonical(glyph)}", file=sys.stderr, flush=True)
    rows = summary(records)
    print(f"{len(ASKED)} prompts x {args.seeds} seeds, {args.method} {args.steps} steps, guidance {args.guidance:g}")
    print_table(rows)
    args.out.mkdir(parents=True, exist_ok=True)
    figures = {"sampler": sampler, "rows": rows, "searches": records}
    (args.out / "attributes.json").write_text(json.dumps(figures, indent=1) + "\n")
    contact_sheet(sheet, args.candidates).save(args.out / "contact_sheet.png", optimize=True)


if __name__ == "__main__":
    main()
