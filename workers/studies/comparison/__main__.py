"""The command, see `sitsearch.workers.studies.comparison`."""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

from sitsearch.workers.errors import SitsearchError
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.studies import comparison
from sitsearch.workers.studies.comparison.cells import Setup, plan_cells, run_cells
from sitsearch.workers.studies.comparison.contenders import contenders_of
from sitsearch.workers.studies.comparison.log import SETUP, append, read
from sitsearch.workers.studies.comparison.report import write_report
from sitsearch.workers.studies.comparison.tasks import TASKS

BUDGETS = (60, 120, 240, 480, 960, 1920, 3840, 7680)


def parser() -> argparse.ArgumentParser:
    """Of the command's arguments."""
    found = argparse.ArgumentParser(
        prog="python -m sitsearch.workers.studies.comparison",
        description=comparison.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    found.add_argument("--out", type=Path, required=True, help="folder of runs.jsonl, study.md, study.json, study.png")
    found.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    found.add_argument(
        "--contenders",
        nargs="+",
        default=sorted(ALGORITHMS),
        metavar="[LABEL=]NAME[:{JSON}]",
        help="algorithms with options, `sampler` among them [default: every algorithm]",
    )
    found.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, metavar="NFE")
    found.add_argument("--seeds", type=int, default=3, help="searches of a condition")
    found.add_argument("--conditions", type=int, default=None, help="only so many, evenly spread [default: all]")
    found.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    found.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    found.add_argument("--batch", type=int, default=64, help="network rows of one forward")
    found.add_argument("--compile", action="store_true", help="compile the network: slower to start, then faster")
    found.add_argument("--threads", type=int, default=None, help="of a process [default: its share of the cores]")
    found.add_argument("--processes", type=int, default=1, help="that share the cells, each with its own model")
    found.add_argument("--report-only", action="store_true", help="make the report of the log that is there")
    return found


def setup_line(setup: Setup, arguments: Sequence[str]) -> dict[str, Any]:
    """What the log notes of a start."""
    name = torch.cuda.get_device_name() if setup.device == "cuda" else platform.processor() or platform.machine()
    return {
        "command": shlex.join(["python", "-m", comparison.__name__, *arguments]),
        "device": setup.device,
        "device_name": name,
        "dtype": str(setup.precision).removeprefix("torch."),
        "batch": setup.batch,
        "compile": setup.compile,
        "processes": setup.processes,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the log lacks, and write the report."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    args = parser().parse_args(given)
    path = args.out / "runs.jsonl"
    log = read(path)
    if not args.report_only:
        tasks = [TASKS[name].thinned(args.conditions) for name in dict.fromkeys(args.tasks)]
        setup = Setup(args.device, args.dtype, args.batch, args.compile, args.threads, args.processes)
        try:
            cells = plan_cells(tasks, contenders_of(args.contenders), sorted(set(args.budgets)), args.seeds, log)
        except (SitsearchError, ValidationError, ValueError) as error:
            parser().error(str(error))
        args.out.mkdir(parents=True, exist_ok=True)
        if cells:
            append(path, {SETUP: setup_line(setup, given)})
        begin = time.monotonic()
        for number, (cell, records) in enumerate(run_cells(cells, setup, path), 1):
            score, seconds = fmean(r["score"] for r in records), records[0]["seconds"] * len(records)
            took = f"{seconds:7.1f} s, {number} of {len(cells)} after {time.monotonic() - begin:.0f} s"
            print(f"{cell}  score {score:9.4f}  {took}", flush=True)
        log = read(path)
    if not log.records:
        parser().error(f"{path} has no records")
    write_report(args.out, log)


if __name__ == "__main__":
    main()
