"""What a search does to verifiers that it does not ask.

`python -m sitsearch.workers.studies.hacking_study --out docs/verifiers`.

Zero-order search selects by one verifier, or by an ensemble, while auditors that were trained apart only look on. Where
the selecting score rises and an auditor falls, the search exploits its verifier: the result's `hacking` names the
auditor (the rule: `sitsearch.workers.search.runs.selection.hacking`). Prints a table, and writes `hacking.json` and
`hacking.png`, the auditors' scores of the best so far against NFE. Finished searches are kept in `hacking.jsonl`, so
that an interrupted study goes on.
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

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.condition import Condition
from sitsearch.models.verifiers.base import Verifier
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.jobs.job import CurvePoint
from sitsearch.workers.jobs.request import ENSEMBLE, GenerateRequest
from sitsearch.workers.local import run_request

AUDITORS = ("auditor", "dinov2")
#: What selects, one after the other; several names are an ensemble by rank.
SELECTORS = ("aesthetic", "aesthetic+classifier", "contrast", "contrast+classifier")
CHARACTERS = "AEQWaegkqw37"
NEIGHBORS = 8
#: Points of a line of the plot.
PLOTTED = 24


def search_by(
    engine: Engine,
    verifiers: dict[str, Verifier],
    selectors: Sequence[str],
    character: str,
    *,
    candidates: int,
    steps: int,
    seed: int,
) -> dict[str, Any]:
    """The record of one search: what its auditors said of the best so far, and whom the flag names."""
    choice = {"name": ENSEMBLE, "members": selectors} if len(selectors) > 1 else selectors[0]
    request = GenerateRequest.model_validate(
        {
            "condition": {"class": character},
            "budget": {"nfe": candidates * steps},
            "verifier": choice,
            "auditors": AUDITORS,
            "search": {"algorithm": "zero_order", "preset": "paper", "neighbors": NEIGHBORS},
            "sampler": {"method": "euler", "steps": steps, "guidance": 1.0},
            "seed": seed,
        }
    )
    condition = Condition(class_index=model_card("glyphs").classes.index(character))
    found = run_request(engine, verifiers, request, conditions=[condition])
    return {
        "selectors": list(selectors),
        "character": character,
        "hacking": list(found.result.hacking or ()),
        "curve": [
            {"nfe": point.nfe, "score": point.score, **(point.scores or {})} for point in _audited(found.progress.curve)
        ],
    }


def _audited(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    return [point for point in curve if point.scores and AUDITORS[0] in point.scores]


def _grouped(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records by what selected, `A+B` for an ensemble."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault("+".join(record["selectors"]), []).append(record)
    return groups


def summary(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over searches by the same selectors: auditors at the start and the end, and how often the flag fired."""
    ends = {}
    for name in AUDITORS:
        first, last = ([record["curve"][at][name] for record in records] for at in (0, -1))
        ends[name] = {
            "first": statistics.fmean(first),
            "last": statistics.fmean(last),
            "worse": statistics.fmean(b < a for a, b in zip(first, last, strict=True)),
        }
    return {
        "searches": len(records),
        "flagged": statistics.fmean(bool(record["hacking"]) for record in records),
        "auditors": ends,
    }


def plot(path: Path, records: Sequence[dict[str, Any]]) -> None:
    """The auditors' mean scores of the best so far against NFE, a line for each way of selecting."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(AUDITORS), figsize=(6 * len(AUDITORS), 4.2), sharex=True)
    for axis, name in zip(axes, AUDITORS, strict=True):
        for selectors, group in _grouped(records).items():
            curves = [record["curve"] for record in group]
            grid = torch.linspace(min(c[0]["nfe"] for c in curves), max(c[-1]["nfe"] for c in curves), PLOTTED).tolist()
            means = [statistics.fmean(_at(curve, nfe, name) for curve in curves) for nfe in grid]
            axis.plot(grid, means, marker=".", label=selectors, linestyle="--" if "+" in selectors else "-")
        axis.set(xlabel="NFE", ylabel="log p(asked character)", title=f"what {name!r} says of the best so far")
        axis.grid(alpha=0.3)
    axes[-1].legend(title="selected by", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _at(curve: Sequence[dict[str, float]], nfe: float, name: str) -> float:
    """The score by `nfe`: of the last point up to there, or the first."""
    return [point[name] for point in curve if point["nfe"] <= nfe or point is curve[0]][-1]


def report(folder: Path, records: Sequence[dict[str, Any]]) -> None:
    """Print the table of what was searched, and write `hacking.json` and `hacking.png`."""
    heads = [f"{name} {when}" for name in AUDITORS for when in ("first", "last", "worse")]
    print(f"| selected by | searches | flag fired | {' | '.join(heads)} |\n|---|---|---|{'---|' * len(heads)}")
    rows = {}
    for selectors, group in _grouped(records).items():
        row = rows[selectors] = summary(group)
        ends = [f"{row['auditors'][name][when]:.2f}" for name in AUDITORS for when in ("first", "last", "worse")]
        print(f"| {selectors} | {len(group)} | {row['flagged']:.0%} | {' | '.join(ends)} |", flush=True)
    (folder / "hacking.json").write_text(json.dumps(rows, indent=1) + "\n")
    plot(folder / "hacking.png", records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--characters", default=CHARACTERS, help="one search of each")
    parser.add_argument("--selectors", nargs="+", default=SELECTORS, help="A, or A+B+...")
    parser.add_argument("--candidates", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="Euler steps of a candidate")
    parser.add_argument("--batch", type=int, default=NEIGHBORS, help="network rows of one forward")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    engine = Engine(load_generator("glyphs", dtype=torch.bfloat16), batch=args.batch, deterministic=False)
    wanted = {name for selectors in args.selectors for name in selectors.split("+")}.union(AUDITORS)
    verifiers = {name: load_verifier(name) for name in sorted(wanted)}
    args.out.mkdir(parents=True, exist_ok=True)
    log = args.out / "hacking.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    known = {(tuple(record["selectors"]), record["character"]) for record in records}
    for seed, character in enumerate(args.characters):
        for selectors in (tuple(each.split("+")) for each in args.selectors):
            if (selectors, character) in known:
                continue
            record = search_by(
                engine, verifiers, selectors, character, candidates=args.candidates, steps=args.steps, seed=seed
            )
            records.append(record)
            print(f"{character} by {'+'.join(selectors)}: flagged {record['hacking']}", file=sys.stderr, flush=True)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
    report(args.out, records)


if __name__ == "__main__":
    main()
