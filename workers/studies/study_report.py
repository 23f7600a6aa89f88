"""The study's table and plot, from its log."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from sitsearch.workers.search.registry import ALGORITHMS

#: What "random search at 64 candidates" is held against.
TARGET = 64
#: The strongest published one for its NFE, and the one that is ours.
STRONGEST, OURS = "epsilon_greedy", "successive_halving"

Cells = dict[tuple[str, int], list[dict[str, Any]]]


def write_report(folder: Path, *, steps: int, guidance: float, norm: float) -> None:
    """Write `study.md`, `study.json` and `study.png` from `runs.jsonl`."""
    cells: Cells = defaultdict(list)
    for line in (folder / "runs.jsonl").read_text().splitlines():
        record = json.loads(line)
        cells[record["algorithm"], record["budget"]].append(record)
    budgets = sorted({budget for _, budget in cells})
    everyone = {name for name, _ in cells}
    shared = max((b for b in budgets if all((name, b) in cells for name in everyone)), default=budgets[-1])
    names = sorted(everyone, key=lambda name: -_mean(cells.get((name, shared), ()), "score"))
    runs = max(map(len, cells.values()))
    lines = [
        "# What each algorithm makes of a budget",
        "",
        f"Bundled model, {steps} Euler or Euler-Maruyama steps a trajectory ({steps} NFE; diffusion of norm {norm:g}), "
        f"guidance {guidance:g}, bfloat16; every class, {runs} searches a cell; mean and standard error.",
        "The classifier selects. The auditor is another network, trained apart, that never selects.",
        "",
        "`make study` makes this page, and a record of every search, `runs.jsonl`.",
        "",
    ]
    for key, title in (
        ("score", "Log-probability of the class under the selecting classifier"),
        ("audit", "Log-probability of the class under the auditor"),
    ):
        lines += [f"## {title}", "", "| algorithm | " + " | ".join(f"{b} NFE" for b in budgets) + " |"]
        lines += ["|---|" + "---|" * len(budgets)]
        for name in names:
            row = [_cell(cells.get((name, budget), ()), key) for budget in budgets]
            lines.append(f"| {name} | " + " | ".join(row) + " |")
        lines.append("")
    lines += ["## Budget for the score of random search at 64 candidates", "", *_reached(cells, names, budgets, steps)]
    lines += ["", f"## Ours, {OURS}, against {STRONGEST}", "", *_duel(cells, budgets)]
    lines += ["", "![score against NFE](study.png)"]
    (folder / "study.md").write_text("\n".join(lines) + "\n")
    table = {
        f"{name}/{budget}": {
            "score": _mean(cells[name, budget], "score"),
            "score_error": _error(cells[name, budget], "score"),
            "audit": _mean(cells[name, budget], "audit"),
            "audit_error": _error(cells[name, budget], "audit"),
            "nfe": _mean(cells[name, budget], "nfe"),
            "searches": len(cells[name, budget]),
        }
        for name, budget in sorted(cells)
    }
    (folder / "study.json").write_text(json.dumps(table, indent=1) + "\n")
    _plot(folder / "study.png", cells, names, budgets)


def _mean(records: Any, key: str) -> float:
    return statistics.fmean(r[key] for r in records) if records else float("-inf")


def _error(records: Any, key: str) -> float:
    return statistics.stdev(r[key] for r in records) / len(records) ** 0.5 if len(records) > 1 else 0.0


def _cell(records: Any, key: str) -> str:
    return f"{_mean(records, key):.4f} ± {_error(records, key):.4f}" if records else "-"


def _reached(cells: Cells, names: list[str], budgets: list[int], steps: int) -> list[str]:
    """Which algorithms get to random search's score at `TARGET` candidates, and by what budget."""
    whole = TARGET * steps
    if ("random", whole) not in cells:
        return [f"Random search was not run at {TARGET} candidates."]
    target = _mean(cells["random", whole], "score")
    lines = [
        f"Random search reaches {_cell(cells['random', whole], 'score')} with {whole} NFE.",
        "",
        "| algorithm | least budget that reaches it |",
    ]
    lines.append("|---|---|")
    halved = []
    for name in names:
        reached = [b for b in budgets if (name, b) in cells and _mean(cells[name, b], "score") >= target]
        share = f"{reached[0]} NFE ({reached[0] / whole:.0%})" if reached else "none of these"
        lines.append(f"| {name} | {share} |")
        if reached and reached[0] <= whole / 2 and name not in ("random", "zero_order", "paths"):
            halved.append(name)
    said = ", ".join(halved) if halved else "none"
    return [*lines, "", f"Of the algorithms after the paper, with at most half of the NFE: {said}."]


def _duel(cells: Cells, budgets: list[int]) -> list[str]:
    """By how much ours scores higher than the strongest, budget by budget, in standard errors too."""
    lines = ["| NFE | difference in score | in standard errors |", "|---|---|---|"]
    for budget in budgets:
        ours, theirs = cells.get((OURS, budget), ()), cells.get((STRONGEST, budget), ())
        if len(ours) > 1 and len(theirs) > 1:
            difference = _mean(ours, "score") - _mean(theirs, "score")
            error = (_error(ours, "score") ** 2 + _error(theirs, "score") ** 2) ** 0.5
            lines.append(f"| {budget} | {difference:+.4f} ± {error:.4f} | {difference / error if error else 0:+.1f} |")
    return lines


def _plot(path: Path, cells: Cells, names: list[str], budgets: list[int]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(13, 5), sharex=True)
    for axis, key, title in zip(axes, ("score", "audit"), ("selecting classifier", "auditor"), strict=True):
        for name in names:
            shown = [b for b in budgets if (name, b) in cells]
            values = [-_mean(cells[name, b], key) for b in shown]
            errors = [_error(cells[name, b], key) for b in shown]
            label = ALGORITHMS[name].title if name in ALGORITHMS else name
            axis.errorbar(shown, values, yerr=errors, marker="o", markersize=3, capsize=2, label=label)
        axis.set(xscale="log", yscale="log", xlabel="NFE of the search", ylabel="-log p(class | winner)", title=title)
        axis.set_xticks(budgets, [str(b) for b in budgets])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
