"""All numbers of the report, from the records of a log."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from sitsearch.workers.studies.comparison.log import Log, Record
from sitsearch.workers.studies.comparison.statistics import (
    Estimate,
    Values,
    bracket,
    budget_to_reach,
    estimate,
    mixed,
    paired,
)

#: Who others are held against, and at which budget they are to reach its score.
BASELINE, TARGET_NFE = "random", 1920
SCORE = "score"


@dataclass(frozen=True)
class CellFigures:
    """What came of the searches of one contender at one budget.

    Attributes:
        searches, nfe, forwards, gradients, seconds: their number, and the means of what they took; no seconds where
            not all ran on the task's first device.
        means: by figure: the score, and each judge.
        differences: to random at the same budget, by figure; empty where random was not run.
        equal_time: the same, to random at the budget at which it takes as long; empty where none was run that does.
        random_nfe: that budget, between those that were run; None where none does.
    """

    searches: int
    nfe: float
    forwards: float
    gradients: float
    seconds: float | None
    means: Mapping[str, float]
    differences: Mapping[str, Estimate]
    equal_time: Mapping[str, Estimate]
    random_nfe: float | None


@dataclass(frozen=True)
class TaskFigures:
    """What came of a task.

    Attributes:
        name: the task's.
        figures: `score` and the judges.
        contenders: label -> algorithm, options and sampler, the highest mean score at the largest shared budget first.
        budgets: in rising order.
        cells: by contender and budget.
        target_nfe: at which random's figures are `targets`; None where random was not run.
        targets: random's mean, by figure.
        reached: by contender and figure: the NFE that it takes to get there, None where it does not.
        devices: all that searches ran on, with precision, the one of the most searches first. Times compare on one
            alone, and are given of that one.
    """

    name: str
    figures: tuple[str, ...]
    contenders: Mapping[str, Mapping[str, Any]]
    budgets: tuple[int, ...]
    cells: Mapping[tuple[str, int], CellFigures]
    target_nfe: int | None
    targets: Mapping[str, float]
    reached: Mapping[str, Mapping[str, float | None]]
    devices: tuple[str, ...]


def analyse(log: Log) -> list[TaskFigures]:
    """The figures of every task that the log has, in its order."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in log.records:
        by_task[record["task"]].append(record)
    return [_task(name, records) for name, records in by_task.items()]


def _value(record: Record, figure: str) -> float:
    return float(record[SCORE] if figure == SCORE else record["judges"][figure])


def _values(records: Iterable[Record], figure: str) -> Values:
    return {(record["condition"], record["seed"]): _value(record, figure) for record in records}


def _task(name: str, records: Sequence[Record]) -> TaskFigures:
    cells: dict[tuple[str, int], list[Record]] = defaultdict(list)
    for record in records:
        cells[record["contender"], record["budget"]].append(record)
    figures = (SCORE, *records[0]["judges"])
    budgets = tuple(sorted({budget for _, budget in cells}))
    devices = tuple(device for device, _ in Counter(map(_device, records)).most_common())
    contenders = {r["contender"]: {key: r[key] for key in ("algorithm", "options", "sampler")} for r in records}
    shared = max((b for b in budgets if all((label, b) in cells for label in contenders)), default=None)
    ranked = sorted(contenders, key=lambda label: -_mean(cells[label, shared], SCORE) if shared else 0)
    target_nfe = max((b for label, b in cells if label == BASELINE and b <= TARGET_NFE), default=None)
    targets = {} if target_nfe is None else {f: _mean(cells[BASELINE, target_nfe], f) for f in figures}
    reached = {
        label: {
            figure: budget_to_reach([(b, _mean(cells[label, b], figure)) for b in budgets if (label, b) in cells], goal)
            for figure, goal in targets.items()
        }
        for label in ranked
    }
    timed = _Timed(cells, figures, devices[0])
    return TaskFigures(
        name=name,
        figures=figures,
        contenders={label: contenders[label] for label in ranked},
        budgets=budgets,
        cells={
            (label, budget): _cell(cells, label, budget, figures, timed)
            for label in ranked
            for budget in budgets
            if (label, budget) in cells
        },
        target_nfe=target_nfe,
        targets=targets,
        reached=reached,
        devices=devices,
    )


def _device(record: Record) -> str:
    return f"{record['device']} {record['dtype']}"


def _mean(records: Sequence[Record], figure: str) -> float:
    return fmean(_value(record, figure) for record in records)


def _cell(
    cells: Mapping[tuple[str, int], Sequence[Record]],
    label: str,
    budget: int,
    figures: Sequence[str],
    timed: _Timed,
) -> CellFigures:
    records, random = cells[label, budget], cells.get((BASELINE, budget), ())
    seconds = timed.seconds(records)
    differences = {}
    for figure in figures:
        if (found := estimate(paired(_values(records, figure), _values(random, figure)))) is not None:
            differences[figure] = found
    random_nfe, equal_time = (None, {}) if seconds is None else timed.against(records, seconds)
    return CellFigures(
        searches=len(records),
        nfe=fmean(record["nfe"] for record in records),
        forwards=fmean(record["forwards"] for record in records),
        gradients=fmean(record.get("gradients", 0) for record in records),
        seconds=seconds,
        means={figure: _mean(records, figure) for figure in figures},
        differences=differences,
        equal_time=equal_time,
        random_nfe=random_nfe,
    )


class _Timed:
    """Random search by the time it takes on one device: between two of its budgets, its figures lie straight over log
    seconds.
    """

    def __init__(self, cells: Mapping[tuple[str, int], Sequence[Record]], figures: Sequence[str], device: str) -> None:
        self._figures, self._device = figures, device
        by_time = sorted(
            (seconds, budget, records)
            for (label, budget), records in cells.items()
            if label == BASELINE and (seconds := self.seconds(records)) is not None
        )
        self._seconds = [seconds for seconds, _, _ in by_time]
        self._budgets = [budget for _, budget, _ in by_time]
        self._records = [records for _, _, records in by_time]

    def seconds(self, records: Sequence[Record]) -> float | None:
        """Of a search, in the mean; None if not all ran on the device."""
        if any(_device(record) != self._device for record in records):
            return None
        return fmean(record["seconds"] for record in records)

    def against(self, records: Sequence[Record], seconds: float) -> tuple[float | None, dict[str, Estimate]]:
        """Random's budget that takes so many seconds a search, and the differences of `records` to it, by figure."""
        place = bracket(self._seconds, seconds)
        if place is None:
            return None, {}
        low, high, weight = place
        differences = {}
        for figure in self._figures:
            random = mixed(_values(self._records[low], figure), _values(self._records[high], figure), weight)
            if (found := estimate(paired(_values(records, figure), random))) is not None:
                differences[figure] = found
        nfe = self._budgets[low] ** (1 - weight) * self._budgets[high] ** weight
        return float(nfe), differences


def as_json(tasks: Sequence[TaskFigures]) -> dict[str, Any]:
    """All figures as JSON has them, by task, contender and budget."""
    return {
        task.name: {
            "figures": task.figures,
            "devices": task.devices,
            "target": {"nfe": task.target_nfe, "means": task.targets},
            "contenders": {
                label: {
                    **said,
                    "nfe_to_reach_target": task.reached[label],
                    "budgets": {
                        str(budget): asdict(task.cells[label, budget])
                        for budget in task.budgets
                        if (label, budget) in task.cells
                    },
                }
                for label, said in task.contenders.items()
            },
        }
        for task in tasks
    }
