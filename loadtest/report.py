"""From the events of a load test to its figures, and to a page of Markdown."""

from __future__ import annotations

import json
import math
import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SUBMIT = "POST /generate"
QUANTILES = (0.50, 0.95, 0.99)


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank `q`-quantile, q in (0, 1]: the least value that at least a share `q` does not exceed.

    Raises:
        ValueError: `values` is empty.
    """
    if not values:
        raise ValueError("no values to take a quantile of")
    return sorted(values)[math.ceil(q * len(values)) - 1]


@dataclass(frozen=True)
class Figures:
    """What a load test measured. Durations are in seconds.

    Attributes:
        window: from the first submission to the end of the last job.
        nfe: spent by the jobs that succeeded.
        submit: durations of the submissions that were accepted.
        finish: from submission to image of the jobs that succeeded.
        errors: how often each kind of failure occurred, of requests and of jobs.
    """

    done: int
    failed: int
    requests: int
    failed_requests: int
    window: float
    nfe: int
    submit: tuple[float, ...]
    finish: tuple[float, ...]
    errors: dict[str, int]

    @property
    def passed(self) -> bool:
        """Work was done and nothing failed."""
        return self.done > 0 and not self.errors


def measure(events: Path) -> Figures:
    """Read the file of JSON lines that the scenario wrote."""
    lines = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    requests = [line for line in lines if line["kind"] == "request"]
    jobs = [line for line in lines if line["kind"] == "job"]
    done = [job for job in jobs if job["error"] is None]
    errors = Counter(f"{r['name']}: {r['error']}" for r in requests if r["error"])
    errors.update(f"job: {job['error']}" for job in jobs if job["error"])
    return Figures(
        done=len(done),
        failed=len(jobs) - len(done),
        requests=len(requests),
        failed_requests=sum(r["error"] is not None for r in requests),
        window=max(job["end"] for job in jobs) - min(job["start"] for job in jobs) if jobs else 0.0,
        nfe=sum(job["nfe"] for job in done),
        submit=tuple(r["seconds"] for r in requests if r["name"] == SUBMIT and not r["error"]),
        finish=tuple(job["end"] - job["start"] for job in done),
        errors=dict(errors.most_common()),
    )


def markdown(figures: Figures, *, users: int, seconds: int) -> str:
    """The report, for people.

    Args:
        users: how many ran at once.
        seconds: for how long they started new jobs.
    """
    window = figures.window or math.inf
    rows = [
        f"{users} users on `sitsearch serve` for {seconds} s, each with one job at a time "
        "(glyphs, random letter, 80 to 400 NFE, classifier, Heun with 10 steps). "
        f"Client machine: {platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}.",
        "",
        f"**{'Passed' if figures.passed else 'Failed'}**: {figures.done} jobs done, {figures.failed} failed; "
        f"{figures.requests} requests, {figures.failed_requests} failed.",
        "",
        "| throughput | |",
        "|---|---:|",
        f"| jobs/s | {figures.done / window:.2f} |",
        f"| NFE/s | {figures.nfe / window:.0f} |",
        "",
        "| latency, s | " + " | ".join(f"p{q * 100:.0f}" for q in QUANTILES) + " | max |",
        "|---|" + "---:|" * (len(QUANTILES) + 1),
        _latency("submit", figures.submit),
        _latency("submit to finish", figures.finish),
        "",
        "| error | count |",
        "|---|---:|",
        *(f"| {_cell(kind)} | {times} |" for kind, times in figures.errors.items()),
        *([] if figures.errors else ["| none | 0 |"]),
    ]
    return "# Load test\n\n" + "\n".join(rows) + "\n"


def _latency(name: str, values: Sequence[float]) -> str:
    cells = [f"{quantile(values, q):.3f}" for q in (*QUANTILES, 1.0)] if values else ["-"] * (len(QUANTILES) + 1)
    return f"| {name} | {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
