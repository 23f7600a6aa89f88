"""(e) What a job costs beside its forwards with 1 to 1,000 jobs queued, and memory against the batch."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from bench.common import Claim, Instant, Report, Setting, drain, glyphs, orders, spread
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine

BATCH, ORDERS, STEPS = 64, 8, 4
QUEUED, REPEATS = (1, 10, 100, 1000), 3
BATCHES = (1, 4, 16, 64, 256)
#: Cost of a job among 1,000 over that of a job among 10: flat, but for the caches of the processor.
BOUND = 1.5


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(e) jobs queued, and memory")
    generator = glyphs(setting.device)
    costs: dict[int, list[float]] = {}
    for queued in setting.pick(QUEUED, (1, 10)):
        found = [_queue(generator, queued) for _ in range(setting.pick(REPEATS, 1))]
        costs[queued] = [one["job"] for one in found]
        report.rows.append(
            {
                "jobs queued": queued,
                "submit, us a job": spread([1e6 * one["submit"] for one in found]),
                "engine, us a job": spread([1e6 * one["job"] for one in found]),
                "engine, us a forward": spread([1e6 * one["forward"] for one in found]),
            }
        )
    most = max(costs)
    flat = spread(costs[most])["median"] / spread(costs[10])["median"]
    report.claims.append(Claim(f"(e) cost of a job, {most} queued / 10 queued", flat, BOUND, least=False))
    for batch in setting.pick(BATCHES, (2,)):
        report.rows.append({"batch": batch} | _memory(generator, batch, setting))
    return report


def _queue(generator: SiTGenerator, queued: int) -> dict[str, float]:
    """Seconds a job and a forward beside the network, with so many jobs at once."""
    engine = Engine(Instant(generator), batch=BATCH)
    work = [orders(ORDERS, steps=STEPS, seed=job) for job in range(queued)]
    begin = time.perf_counter()
    for job, ordered in enumerate(work):
        engine.submit(str(job), ordered)
    submitted = time.perf_counter()
    done = drain(engine)
    end = time.perf_counter()
    assert len(done) == queued and engine.nfe == queued * ORDERS * STEPS
    return {
        "submit": (submitted - begin) / queued,
        "job": (end - begin) / queued,
        "forward": (end - submitted) / engine.steps,
    }


def _memory(generator: SiTGenerator, batch: int, setting: Setting) -> dict[str, Any]:
    """The most memory that sampling a full batch takes, weights not counted."""
    if setting.device == "cuda":
        import torch

        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _sample(generator, batch)
        return {"peak MiB": round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)}
    _sample(generator, 1)
    ctypes.CDLL(None).malloc_trim(0)  # what was freed before is not to hide what is taken now
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak is counted from here
    _sample(generator, batch)
    return {"peak MiB": round((_status("VmHWM") - before) / 2**20, 1)}


def _sample(generator: SiTGenerator, batch: int) -> None:
    engine = Engine(generator, batch=max(2, batch), deterministic=False)
    engine.submit("job", orders(batch, steps=1))
    drain(engine)


def _status(name: str) -> int:
    """Bytes, of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
