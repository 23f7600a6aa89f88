"""The report: `study.md`, `study.json` and `study.png`, from a log alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sitsearch.workers.studies.comparison.analysis import (
    BASELINE,
    SCORE,
    TARGET_NFE,
    CellFigures,
    TaskFigures,
    analyse,
    as_json,
)
from sitsearch.workers.studies.comparison.log import Log
from sitsearch.workers.studies.comparison.plot import plot
from sitsearch.workers.studies.comparison.statistics import LEVEL, RESAMPLES, Estimate
from sitsearch.workers.studies.comparison.tasks import TASKS

NONE = "-"


def write_report(folder: Path, log: Log) -> None:
    """Write the report of a log that is not empty to `folder`."""
    tasks = analyse(log)
    (folder / "study.md").write_text("\n".join(page(tasks, log)) + "\n")
    table = {"setups": log.setups, "resamples": RESAMPLES, "level": LEVEL, "tasks": as_json(tasks)}
    (folder / "study.json").write_text(json.dumps(table, indent=1) + "\n")
    plot(folder / "study.png", tasks)


def page(tasks: Sequence[TaskFigures], log: Log) -> Iterator[str]:
    """The lines of `study.md`."""
    yield "# What each algorithm makes of a budget"
    yield ""
    yield "Contenders search for the same conditions from the same start noises at the same budgets. A verifier"
    yield "selects; judges, which took no part, say what they think of the winners. A difference is to `random`, of"
    yield f"searches with one condition, budget and seed; in brackets its {LEVEL:.0%} interval, a bootstrap over"
    yield f"conditions with all seeds of one together ({RESAMPLES:,} resamples). `+` and `-` mark intervals that"
    yield "exclude 0, `=` those that do not."
    yield ""
    yield "`make study` makes this page, `study.json` with all numbers, and `runs.jsonl`, a record of every search."
    for setup in log.setups:
        yield ""
        yield f"`{setup['command']}` on {setup['device_name']}, {setup['dtype']}, torch {setup['versions']['torch']}."
    yield ""
    yield "![score against NFE, difference to random, score against time](study.png)"
    for task in tasks:
        yield from _task(task)
    yield ""
    yield "## Contenders"
    yield ""
    yield from _contenders(tasks)


def _task(task: TaskFigures) -> Iterator[str]:
    known = TASKS.get(task.name)
    yield ""
    yield f"## {known.title if known else task.name}"
    yield ""
    searches = sorted({cell.searches for cell in task.cells.values()})
    yield (
        f"Task `{task.name}`"
        + (f"; `{known.selector}` selects" if known else "")
        + f"; {' to '.join(map(str, sorted({searches[0], searches[-1]})))} searches a cell."
    )
    for figure in task.figures:
        title = "Score" if figure == SCORE else f"Judge `{figure}`"
        yield from _table(f"{title}: mean", task, partial(_mean_of, figure))
        if any(cell.differences for cell in task.cells.values()):
            heading = f"{title}: difference to random at equal NFE"
            yield from _table(heading, task, partial(_difference_of, figure), without=(BASELINE,))
    yield from _reached(task)
    yield from _equal_time(task)


def _table(
    title: str, task: TaskFigures, text: Callable[[CellFigures], str], *, without: Sequence[str] = ()
) -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    yield "| contender | " + " | ".join(f"{budget} NFE" for budget in task.budgets) + " |"
    yield "|---|" + "---|" * len(task.budgets)
    for label in task.contenders:
        if label not in without:
            row = [text(task.cells[label, b]) if (label, b) in task.cells else NONE for b in task.budgets]
            yield f"| {label} | " + " | ".join(row) + " |"


def _reached(task: TaskFigures) -> Iterator[str]:
    yield ""
    yield f"### NFE to reach what random has at {task.target_nfe or TARGET_NFE} NFE"
    yield ""
    if task.target_nfe is None:
        yield f"`{BASELINE}` was not run at {TARGET_NFE} NFE or less."
        return
    yield "By the contender's mean curve, straight over log NFE between budgets; `<=` where its least budget is enough."
    yield ""
    yield "| contender | " + " | ".join(f"{f}, {_number(task.targets[f])}" for f in task.figures) + " |"
    yield "|---|" + "---|" * len(task.figures)
    for label in task.contenders:
        least = min(budget for name, budget in task.cells if name == label)
        row = []
        for figure in task.figures:
            nfe = task.reached[label][figure]
            row.append("not reached" if nfe is None else f"<= {nfe:.0f}" if nfe == least else f"{nfe:.0f}")
        yield f"| {label} | " + " | ".join(row) + " |"


def _equal_time(task: TaskFigures) -> Iterator[str]:
    if any(cell.gradients for cell in task.cells.values()):
        yield from _table("Gradients of a search", task, lambda cell: f"{cell.gradients:.0f}")
    yield from _table("Seconds of a search", task, lambda cell: NONE if cell.seconds is None else f"{cell.seconds:.3g}")
    yield ""
    yield "### Difference in score to random at equal NFE, and at equal wall time"
    yield ""
    if len(task.devices) > 1:
        yield f"Times are given of searches on {task.devices[0]}; others ran on {', '.join(task.devices[1:])}."
    yield "Each field holds both. A search's time is that of its cell, whose searches run at once on one engine, over"
    yield "their number; verifier included, judges not. At equal time, random's mean curve is straight over log seconds"
    yield "between its budgets; `-` where it was not run for so long, or so short."
    yield ""
    yield "| contender | " + " | ".join(f"{budget} NFE" for budget in task.budgets) + " |"
    yield "|---|" + "---|" * len(task.budgets)
    for label in task.contenders:
        if label == BASELINE:
            continue
        row = []
        for budget in task.budgets:
            cell = task.cells.get((label, budget))
            row.append(f"{_short(cell.differences.get(SCORE))}, {_short(cell.equal_time.get(SCORE))}" if cell else NONE)
        yield f"| {label} | " + " | ".join(row) + " |"


def _contenders(tasks: Sequence[TaskFigures]) -> Iterator[str]:
    yield "| task | contender | algorithm | options | sampler |"
    yield "|---|---|---|---|---|"
    for task in tasks:
        for label, said in task.contenders.items():
            row = (task.name, label, said["algorithm"], _said(said["options"]), _said(said["sampler"]))
            yield "| " + " | ".join(row) + " |"


def _said(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items()) or NONE


def _number(value: float) -> str:
    return f"{value:.4f}"


def _mean_of(figure: str, cell: CellFigures) -> str:
    return _number(cell.means[figure])


def _difference_of(figure: str, cell: CellFigures) -> str:
    found = cell.differences.get(figure)
    if found is None:
        return NONE
    if found.low is None or found.high is None:
        return f"{found.mean:+.4f} {found.sign}"
    return f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] {found.sign}"


def _short(found: Estimate | None) -> str:
    return NONE if found is None else f"{found.mean:+.4f} {found.sign}"
