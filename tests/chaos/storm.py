"""Faults and jobs, side by side."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from redis import Redis

from sitsearch.service.client import Client, Problem
from sitsearch.workers.search.registry import ALGORITHMS
from tests.cluster.conftest import LEASE, Service
from tests.cluster.requests import body, locally, winner

#: What a process's command line says, by what it is.
SIGNS = {
    "coordinator": b"ServeReplica:sitsearch:Coordinator",
    "sampler": b"Sampler-glyphs",
    "verifier": b"Verifier-classifier",
    "gateway": b"sitsearch.service.gateway",
    "valkey": b"valkey-server",
}
KINDS = (*SIGNS, "frozen coordinator", "full memory")
#: Seconds that a job may take, whatever happens.
PATIENCE = 300.0


@dataclass
class Report:
    """What came of a storm.

    Attributes:
        faults: by kind.
        jobs: how many were accepted.
        problems: what should not have been.
        recoveries: seconds from each fault to the next logged round of any job.
        wasted: NFE that were computed twice.
    """

    faults: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    problems: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)
    wasted: int = 0

    def __str__(self) -> str:
        told = ", ".join(f"{number} {kind}" for kind, number in sorted(self.faults.items()))
        slow = sorted(self.recoveries)[int(0.95 * len(self.recoveries))] if self.recoveries else 0.0
        lines = [
            f"{self.jobs} jobs of {len(ALGORITHMS)} algorithms under {self.faults.total()} faults ({told})",
            f"{len(self.problems)} lost, twice there or with another winner; {self.wasted} NFE computed twice",
            f"the next round came within {slow:.1f} s of 95% of the faults (lease {LEASE} s)",
            *self.problems,
        ]
        return "\n".join(lines)


class Storm:
    """Jobs and faults over a running service.

    Args:
        service: the service; nobody else uses it.
        seed: of what happens when.
    """

    def __init__(self, service: Service, seed: int = 0) -> None:
        self.service, self.report = service, Report()
        self._draw = random.Random(seed)
        self._over = threading.Event()
        self._numbers, self._lock = count(), threading.Lock()
        self._expected: dict[str, Any] = {}

    def rage(self, seconds: float, *, every: float, clients: int = 3, kinds: Sequence[str] = KINDS) -> Report:
        """Let clients ask for jobs for some seconds, with a fault `every` so many; then see all jobs to their end."""
        for algorithm in ALGORITHMS:
            self._expected[algorithm] = self._locally(algorithm)
        with Client(self.service.url) as client:
            before = len(_all_jobs(client))
        threads = [threading.Thread(target=self._ask_for_jobs) for _ in range(clients)]
        for thread in threads:
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(every * self._draw.uniform(0.5, 1.5))
            self._fault(self._draw.choice(kinds))
        self._over.set()
        for thread in threads:
            thread.join()
        with Client(self.service.url) as client:
            found = len(_again(lambda: _all_jobs(client))) - before
        if found != self.report.jobs:
            self.report.problems.append(f"{self.report.jobs} jobs were accepted, and there are {found}")
        return self.report

    def _locally(self, algorithm: str) -> Any:
        found = locally(_request(algorithm))
        return found.result.images[0].candidate.model_dump(mode="json"), found.result.candidates

    def _ask_for_jobs(self) -> None:
        with Client(self.service.url, timeout=20) as client:
            while not self._over.is_set():
                with self._lock:
                    algorithm = [*ALGORITHMS][next(self._numbers) % len(ALGORITHMS)]
                self._one_job(client, algorithm)

    def _one_job(self, client: Client, algorithm: str) -> None:
        key, since = uuid.uuid4().hex, time.monotonic()
        job = _again(lambda: client.submit(_request(algorithm), idempotency_key=key))
        with self._lock:
            self.report.jobs += 1
        while job["status"] not in ("succeeded", "failed", "canceled"):
            if time.monotonic() - since > PATIENCE:
                return self._complain(f"{algorithm} {job['id']} is not over after {PATIENCE:.0f} s: {job['status']}")
            job = _again(partial(client.refresh, job, wait=2))
        if job["status"] != "succeeded":
            return self._complain(f"{algorithm} {job['id']} has {job['status']}: {job['error']}")
        with self._lock:
            self.report.wasted += job["usage"]["nfe_wasted"]
        if (winner(job), job["result"]["candidates"]) != self._expected[algorithm]:
            self._complain(f"{algorithm} {job['id']} has another winner than undisturbed")
        return None

    def _complain(self, text: str) -> None:
        with self._lock:
            self.report.problems.append(text)

    def _fault(self, kind: str) -> None:
        done = self._fill_memory() if kind == "full memory" else self._signal(kind)
        if done:
            self.report.faults[kind] += 1
            begin, rounds = time.monotonic(), self._rounds()
            while self._rounds() == rounds and time.monotonic() - begin < PATIENCE:
                time.sleep(0.1)
            self.report.recoveries.append(time.monotonic() - begin)

    def _signal(self, kind: str) -> bool:
        frozen = kind.startswith("frozen ")
        found = self._processes(SIGNS[kind.removeprefix("frozen ")])
        if not found:
            return False
        pid = self._draw.choice(found)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if frozen else signal.SIGKILL)
            if frozen:
                threading.Timer(2 * LEASE, _thaw, [pid]).start()
        return True

    def _processes(self, sign: bytes) -> list[int]:
        found = []
        for pid in self.service.descendants() | _children(self.service.process.pid):
            with suppress(OSError):
                if sign in Path(f"/proc/{pid}/cmdline").read_bytes():
                    found.append(pid)
        return sorted(found)

    def _fill_memory(self) -> bool:
        """Let the store take nothing new for a while."""
        try:
            with self._store() as store:
                store.config_set("maxmemory", "1mb")
            time.sleep(LEASE)
        finally:
            with suppress(Exception), self._store() as store:
                store.config_set("maxmemory", "0")
        return True

    def _store(self) -> Redis:
        """A client of the service's own Valkey, whose address the gateway was given."""
        for pid in self._processes(SIGNS["gateway"]):
            entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            for entry in entries:
                if entry.startswith(b"SITSEARCH_REDIS_URL="):
                    return Redis.from_url(entry.partition(b"=")[2].decode())
        raise RuntimeError("no gateway runs")

    def _rounds(self) -> int:
        """Rounds that were logged so far, of all jobs there are."""
        try:
            with self._store() as store:
                return sum(int(store.llen(key)) for key in store.scan_iter("*:rounds:*"))  # type: ignore[arg-type]
        except Exception:
            return -1


def _thaw(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def _children(pid: int) -> set[int]:
    found: set[int] = set()
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        found |= {int(child) for child in path.read_text().split()}
    return found


def _request(algorithm: str) -> dict[str, Any]:
    stochastic = ALGORITHMS[algorithm].stochastic
    sampler = {"method": "glass" if stochastic else "euler", "steps": 4, "guidance": 1.5}
    own = {"guide": "off"} if algorithm == "auto" else {}  # which would be guided here, and in one process is not
    return body(search=algorithm, sampler=sampler, budget={"nfe": 160}, **own)


def _again(call: Callable[[], Any]) -> Any:
    """What a call gives once the service answers."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return call()
        except (httpx.TransportError, Problem) as error:
            if (isinstance(error, Problem) and error.status not in (429, 503, 507)) or time.monotonic() > end:
                raise
            time.sleep(0.5)


def _all_jobs(client: Client) -> list[Any]:
    jobs, path = [], "/jobs?limit=200"
    while path:
        page = client._json("GET", path)
        jobs += page["jobs"]
        path = page["links"]["next"]
    return jobs
