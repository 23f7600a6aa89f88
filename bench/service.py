"""(d) The whole service over HTTP against the engine alone, and how soon an idle service answers.

The service is `sitsearch serve` in processes of its own: gateway, Valkey, coordinator, samplers and verifier. Clients
keep eight jobs in flight, each submitting its next job once the one before has ended. The engine alone samples the same
trajectories, in turns with the service and with as many jobs in flight: once as one engine on all cores, and once as
the service has it, as many engines with as many threads each (`sitsearch.workers.serving.app.shares_of_machine`). It
scores nothing and stores nothing, so that the ratio holds all that a service adds, the verifier's work included.
"""

from __future__ import annotations

import os
import shlex
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.common import Claim, Report, Setting, alternate, glyphs, orders, quantile, ratios, spread
from loadtest.run import SERVE, running_service
from sitsearch.service.client import Client
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.machine import cores, take_machine
from sitsearch.workers.serving.app import shares_of_machine
from sitsearch.workers.settings import Settings

START = 180.0
JOBS, EACH, CANDIDATES, STEPS, ROUNDS = 8, 3, 32, 12, 5
BATCH, PROBES = 64, 30
BOUND, LATENCY_BOUND = 0.9, 0.1
#: Of a process of `_engines`.
_engine: Engine


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(d) the service over HTTP against the engine alone")
    each, candidates, rounds, probes = setting.pick((EACH, CANDIDATES, ROUNDS, PROBES), (1, 1, 1, 2))
    work = JOBS * each * candidates * STEPS
    shares = shares_of_machine(Settings(), cores(), gpu=setting.device == "cuda")
    count, threads = shares["sampler_replicas"], shares["sampler_threads"]
    os.environ["SITSEARCH_BATCH"] = str(BATCH)
    with (
        _engines(setting.device, 1, None) as one,
        _engines(setting.device, count, threads) as many,
        tempfile.TemporaryDirectory(prefix="sitsearch-bench-") as folder,
    ):
        log = Path(folder) / "serve.log"
        with running_service(shlex.split(SERVE), log, START) as url, Client(url) as client:
            _probe(client)
            latencies = [_probe(client) for _ in range(probes)]
            found = alternate(
                {
                    "one": _rate(work, partial(_sample, one, 1, each, candidates)),
                    "many": _rate(work, partial(_sample, many, count, each, candidates)),
                    "service": _rate(work, partial(_service, client, each, candidates)),
                },
                rounds,
            )
    whole, alone = ([work / rate for rate in found[name]] for name in ("service", "many"))
    over = [a - b for a, b in zip(whole, alone, strict=True)]
    ratio = ratios(found["service"], found["many"])
    report.rows.append(
        {
            "jobs in flight": JOBS,
            "one engine NFE/s": spread(found["one"]),
            f"{count} engines of {threads} thread(s) NFE/s": spread(found["many"]),
            "service NFE/s": spread(found["service"]),
            "service / one": spread(ratios(found["service"], found["one"])),
            f"service / {count}": spread(ratio),
            "overhead, ms a candidate": spread([1000 * s * STEPS / work for s in over]),
            "overhead, ms a job": spread([1000 * s / (JOBS * each) for s in over]),
        }
    )
    report.rows.append(
        {
            "idle service": "submit to first evaluation stored",
            "p50 ms": 1000 * quantile(latencies, 0.5),
            "p95 ms": 1000 * quantile(latencies, 0.95),
        }
    )
    report.claims.append(
        Claim("(d) service / the same engines alone, 8 jobs in flight", spread(ratio)["median"], BOUND)
    )
    p50 = quantile(latencies, 0.5)
    report.claims.append(Claim("(d) submit to first evaluation, idle, p50 s", p50, LATENCY_BOUND, least=False))
    return report


def _rate(work: int, action: Callable[[], None]) -> Callable[[], float]:
    def measure() -> float:
        begin = time.perf_counter()
        action()
        return work / (time.perf_counter() - begin)

    return measure


def _request(nfe: int, steps: int, seed: int) -> dict[str, Any]:
    return {
        "model": "glyphs",
        "condition": {"class": "Q"},
        "seed": seed,
        "budget": {"nfe": nfe},
        "verifier": "classifier",
        "search": {"algorithm": "random"},
        "sampler": {"method": "euler", "steps": steps, "guidance": 1.0},
    }


def _engines(device: str, count: int, threads: int | None) -> ProcessPoolExecutor:
    """So many engines of so many threads, in processes of their own."""
    return ProcessPoolExecutor(count, get_context("spawn"), initializer=_start, initargs=(device, threads))


def _start(device: str, threads: int | None) -> None:
    global _engine
    take_machine(threads)
    _engine = Engine(glyphs(device), batch=BATCH)
    _engine.measure()


def _sample(engines: ProcessPoolExecutor, count: int, each: int, candidates: int) -> None:
    """The clients' jobs without a service: each engine has its part of the clients."""
    parts = [JOBS // count + (part < JOBS % count) for part in range(count)]
    list(engines.map(partial(_sample_part, each=each, candidates=candidates), parts))


def _sample_part(clients: int, *, each: int, candidates: int) -> None:
    jobs = [(str(seed), orders(candidates, steps=STEPS, seed=seed)) for seed in range(clients * each)]
    waiting = iter(jobs)
    for job in islice(waiting, clients):
        _engine.submit(*job)
    while _engine.busy:
        for job in islice(waiting, len(_engine.step())):
            _engine.submit(*job)


def _service(client: Client, each: int, candidates: int) -> None:
    def one_after_the_other(first: int) -> None:
        for seed in range(first, first + each):
            client.wait(client.submit(_request(candidates * STEPS, STEPS, seed)))

    with ThreadPoolExecutor(JOBS) as clients:
        list(clients.map(one_after_the_other, range(0, JOBS * each, each)))


def _probe(client: Client) -> float:
    """Seconds from the submission of a search of one candidate and one step to its result, as its client sees them."""
    begin = time.perf_counter()
    client.wait(client.submit(_request(1, 1, 0)))
    return time.perf_counter() - begin
