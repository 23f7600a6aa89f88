"""The picture: for each task, score against NFE, difference to random, and score against time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sitsearch.workers.studies.comparison.analysis import BASELINE, SCORE, CellFigures, TaskFigures

#: Line styles go through these when matplotlib's ten colours are used up.
STYLES = ("-", "--", ":")
BASELINE_LOOK: dict[str, Any] = {"color": "black", "marker": "o", "markersize": 3, "linewidth": 2.4}


def plot(path: Path, tasks: Sequence[TaskFigures]) -> None:
    """Write the picture of all tasks, a row each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure, axes = plt.subplots(len(tasks), 3, figsize=(19, 5.2 * len(tasks)), squeeze=False)
    everyone = sorted({label for task in tasks for label in task.contenders if label != BASELINE})
    looks = {label: _look(place) for place, label in enumerate(everyone)} | {BASELINE: BASELINE_LOOK}
    for task, (by_nfe, difference, by_time) in zip(tasks, axes, strict=True):
        # A log-probability is shown by its distance from 0, or the best could not be told apart.
        negated = all(cell.means[SCORE] < 0 for cell in task.cells.values())
        spans = []
        for label in task.contenders:
            look = looks[label] | {"label": label}
            cells = [(b, task.cells[label, b]) for b in task.budgets if (label, b) in task.cells]
            scores = [-c.means[SCORE] if negated else c.means[SCORE] for _, c in cells]
            by_nfe.plot([b for b, _ in cells], scores, **look)
            timed = [(c.seconds, score) for (_, c), score in zip(cells, scores, strict=True) if c.seconds is not None]
            by_time.plot([seconds for seconds, _ in timed], [score for _, score in timed], **look)
            spans += _difference(difference, cells, look) if label != BASELINE else []
        difference.axhline(0, color="black", linewidth=2.4)
        what = "-score of the winner (log, up is better)" if negated else "score of the winner"
        for axis in (by_nfe, by_time):
            axis.set(ylabel=what, xscale="log")
            if negated:
                axis.set(yscale="log")
                axis.invert_yaxis()
        for axis in (by_nfe, difference):
            axis.set(xlabel="NFE of a search", xscale="log")
            axis.set_xticks(task.budgets, [str(b) for b in task.budgets])
            axis.minorticks_off()
        if spans:  # the least budgets differ by far more than the rest, on which all depends
            difference.set_yscale("symlog", linthresh=sorted(spans)[len(spans) // 2] or 1.0)
        difference.set(ylabel="paired difference in score to random, 95% interval", title="Difference at equal NFE")
        by_nfe.set(title=f"{task.name}: score by NFE")
        for log_scaled in (by_time.xaxis, *((by_nfe.yaxis, by_time.yaxis) if negated else ())):
            log_scaled.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            log_scaled.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            log_scaled.set_minor_formatter(NullFormatter())
        by_time.set(xlabel=f"seconds of a search ({task.devices[0]})", title="Score by wall time")
        by_time.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axis in (by_nfe, difference, by_time):
            axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _look(place: int) -> dict[str, Any]:
    """How a contender is drawn, alike in all tasks."""
    style = STYLES[place // 10 % len(STYLES)]
    return {"color": f"C{place % 10}", "linestyle": style, "marker": "o", "markersize": 3, "linewidth": 1.3}


def _difference(axis: Any, cells: Sequence[tuple[int, CellFigures]], look: dict[str, Any]) -> list[float]:
    """Draw one contender's differences with their band; how large they are."""
    found = [(budget, cell.differences[SCORE]) for budget, cell in cells if SCORE in cell.differences]
    axis.plot([b for b, _ in found], [e.mean for _, e in found], **look)
    banded = [(b, e.low, e.high) for b, e in found if e.low is not None and e.high is not None]
    axis.fill_between(
        [b for b, _, _ in banded],
        [low for _, low, _ in banded],
        [high for _, _, high in banded],
        color=look["color"],
        alpha=0.1,
        linewidth=0,
    )
    return [abs(e.mean) for _, e in found]
