"""Cells: all searches of one contender at one budget, planned, run and shared among processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from sitsearch.models.catalog import load_generator, load_verifier, model_card
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import LATENT_BYTES, LIVE_SHARE, Engine, free_memory
from sitsearch.workers.engine.forwards import buckets
from sitsearch.workers.engine.gradients import Here
from sitsearch.workers.engine.machine import cores, network_dtype, take_machine
from sitsearch.workers.errors import BudgetTooSmall
from sitsearch.workers.studies.comparison.contenders import Contender, request_of, run_of, said_of
from sitsearch.workers.studies.comparison.judges import Judge, judge_named
from sitsearch.workers.studies.comparison.log import Log, append, key_of
from sitsearch.workers.studies.comparison.shared import Case, run_together
from sitsearch.workers.studies.comparison.tasks import Asked, Task

#: Pictures of one call of a verifier, at least.
SCORED = 64


@dataclass(frozen=True)
class Cell:
    """Searches of one contender at one budget.

    Attributes:
        task, contender, budget: of all of them; the budget in NFE.
        cases: condition and seed of each.
    """

    task: Task
    contender: Contender
    budget: int
    cases: tuple[tuple[Asked, int], ...]

    @property
    def work(self) -> float:
        """Network rows that it takes, about."""
        guided = {**self.task.sampler, **self.contender.sampler}.get("guidance", 1.0) != 1.0
        return len(self.cases) * self.budget * (2 if guided else 1)

    def __str__(self) -> str:
        return f"{self.task.name:8s} {self.contender.label:24s} {self.budget:6d} NFE"


def plan_cells(
    tasks: Sequence[Task],
    contenders: Sequence[Contender],
    budgets: Sequence[int],
    seeds: int,
    log: Log,
    say: Callable[[str], None] = print,
) -> list[Cell]:
    """The cells that the log lacks, each with the searches that it lacks.

    A budget below a contender's least is left out, and said.

    Raises:
        ValueError: the log has a contender under the same label with other options or another sampler.
        Unsuitable, UnknownName, pydantic.ValidationError: see `SearchRun`.
    """
    known = {key_of(record) for record in log.records}
    said = {(r["task"], r["contender"]): {name: r[name] for name in ("options", "sampler")} for r in log.records}
    cells = []
    for task in tasks:
        for contender in contenders:
            for budget in budgets:
                request = request_of(task, contender, budget, task.conditions[0], 0)
                before = said.get((task.name, contender.label), said_of(request))
                if before != said_of(request):
                    raise ValueError(f"the log has {contender.label!r} with {before}, not {said_of(request)}")
                every = [(asked, seed) for seed in range(seeds) for asked in task.conditions]
                cases = [
                    (asked, seed)
                    for asked, seed in every
                    if (task.name, contender.label, budget, asked.id, seed) not in known
                ]
                cell = Cell(task, contender, budget, tuple(cases))
                try:
                    run_of(request)
                except BudgetTooSmall as error:
                    say(f"{cell}  skipped: {error}")
                    continue
                if cases:
                    cells.append(cell)
    return cells


def case_of(task: Task, contender: Contender, budget: int, asked: Asked, seed: int) -> Case:
    """One search of a cell, not begun; raises as `run_of`."""
    run = run_of(request_of(task, contender, budget, asked, seed))
    return Case(asked, seed, run, f"{task.name}|{contender.label}|{budget}|{asked.id}|{seed}")


@dataclass(frozen=True)
class Setup:
    """How cells are run.

    Attributes:
        device: `cpu` or `cuda`, of the network and of the verifiers.
        dtype: the network's precision, or `auto`; see `network_dtype`.
        batch: network rows of one forward.
        compile: compile the network.
        threads: of torch in each process; None shares out the cores.
        processes: that share the cells, each with a model of its own.
    """

    device: str = "cpu"
    dtype: str = "auto"
    batch: int = 64
    compile: bool = False
    threads: int | None = None
    processes: int = 1

    @property
    def precision(self) -> torch.dtype:
        """What `dtype` comes to."""
        return network_dtype(self.dtype, self.device)


class Workplace:
    """One process's engine, verifiers and judges, each loaded when it is first needed."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._scored = max(SCORED, setup.batch)
        take_machine(setup.threads or max(1, cores() // setup.processes))
        self._engine, self._selector = cache(self._make_engine), cache(self._make_selector)
        self._judge, self._guides = cache(self._make_judge), cache(self._make_guides)

    def _make_engine(self, model: str) -> Engine:
        setup = self.setup
        generator = load_generator(model, device=setup.device, dtype=setup.precision)
        if setup.compile:
            generator.compile()
        part = free_memory(generator.device) // LIVE_SHARE // setup.processes
        engine = Engine(
            generator,
            batch=setup.batch,
            buckets=buckets(setup.batch) if setup.compile else None,
            latent_bytes=part if setup.device.startswith("cuda") else LATENT_BYTES,
            live_bytes=part,
        )
        engine.measure()  # nothing of a cell's time is for compiling, or for trying out sizes of forwards
        return engine

    def _make_selector(self, name: str, model: str) -> Scorer:
        scorer = Scorer(load_verifier(name, device=self.setup.device), batch=self._scored)
        size = model_card(model).image_size
        scorer.warm_up(size, size)
        return scorer

    def _make_guides(self, name: str, model: str) -> Here:
        decoder, verifier = self._engine(model).generator.decoder, self._selector(name, model).verifier
        return Here({name: verifier}, decoder, batch=self._scored, shape=self._engine(model).generator.shape)

    def _make_judge(self, name: str) -> Judge:
        return judge_named(name, device=self.setup.device, batch=self._scored)

    def run(self, cell: Cell) -> list[dict[str, Any]]:
        """The records of a cell's searches; the judges' time is not part of their `seconds`."""
        engine, selector = self._engine(cell.task.model), self._selector(cell.task.selector, cell.task.model)
        engine.guides = self._guides(cell.task.selector, cell.task.model)
        begin = time.perf_counter()
        cases = [case_of(cell.task, cell.contender, cell.budget, *case) for case in cell.cases]
        ended = sorted(run_together(engine, selector, cases), key=lambda case: (case.seed, case.asked.place))
        seconds = (time.perf_counter() - begin) / len(ended)
        pictures, asked = torch.stack([case.picture for case in ended]), [case.asked for case in ended]
        judged = {name: self._judge(name)(pictures, asked) for name in cell.task.judges}
        return [
            self._record(cell, case, seconds, {name: judged[name][i] for name in judged})
            for i, case in enumerate(ended)
        ]

    def _record(self, cell: Cell, case: Case, seconds: float, judged: dict[str, float]) -> dict[str, Any]:
        result, progress = case.search.result(), case.search.progress
        return {
            "task": cell.task.name,
            "contender": cell.contender.label,
            "algorithm": cell.contender.algorithm,
            "budget": cell.budget,
            "condition": case.asked.id,
            "seed": case.seed,
            "nfe": progress.nfe_spent,
            "forwards": progress.forwards_spent,
            "gradients": progress.gradients_spent,
            "nfe_again": case.nfe_again,
            "score": result.images[0].score,
            "judges": judged,
            "rounds": case.search.rounds,
            "candidates": result.candidates,
            "seconds": seconds,
            "together": len(cell.cases),
            "device": self.setup.device,
            "dtype": str(self.setup.precision).removeprefix("torch."),
            **said_of(case.search.request),
        }


def run_cells(cells: Sequence[Cell], setup: Setup, log: Path) -> Iterator[tuple[Cell, list[dict[str, Any]]]]:
    """Run cells and append their records to the log; yields each as it ends.

    Several processes take the largest first, so that none is left with one at the end. One process takes the smallest
    first, so that a report can be made early.
    """
    ordered = sorted(cells, key=lambda cell: cell.work, reverse=setup.processes > 1)
    if setup.processes == 1:
        place = Workplace(setup)
        for cell in ordered:
            yield cell, _logged(place, cell, log)
        return
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(setup.processes, context, _settle, (setup,)) as pool:
        under_way = {pool.submit(_take, cell, log): cell for cell in ordered}
        try:
            for future in as_completed(under_way):
                yield under_way[future], future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _logged(place: Workplace, cell: Cell, log: Path) -> list[dict[str, Any]]:
    records = place.run(cell)
    for record in records:
        append(log, record)
    return records


#: Of a process of the pool.
_place: list[Workplace] = []


def _settle(setup: Setup) -> None:
    _place[:] = [Workplace(setup)]


def _take(cell: Cell, log: Path) -> list[dict[str, Any]]:
    return _logged(_place[0], cell, log)
