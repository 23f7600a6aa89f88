"""(g) The control plane alone: one real coordinator and one real Valkey, with instant sampling and verification.

Jobs are submitted to the store, claimed, searched and logged by the `Coordinator` class itself, whose handles answer at
once: no Ray, no network. All jobs of a case are claimed before the first sample is answered, so that as many are in
flight as the case says. Rounds are counted from when every job has had one, for a while and one more of each at least:
jobs take turns, so that a shorter count would see a part of the turn. Then jobs of one round are run to their end.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench.common import Claim, Report, Setting
from bench.stub_pools import StubSampler, StubVerifier
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.serving.coordinator import Coordinator
from sitsearch.workers.settings import Settings

IN_FLIGHT = (10, 1000, 10_000)
#: Seconds for which rounds are counted, at least.
WINDOW = 6.0
#: Longer than a turn of all jobs takes: one coordinator's event loop serves them in turn, and its leases too.
LEASE = 120.0
#: Jobs that are run to their end.
JOBS = 2000
NEIGHBORS, STEPS, ROUNDS = 4, 8, 1000
BOUND, LATENCY_BOUND = 300.0, 1.0


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(g) control plane alone")
    cases = setting.pick(IN_FLIGHT, (2,))
    for in_flight in cases:
        with tempfile.TemporaryDirectory(prefix="sitsearch-bench-") as folder, EmbeddedValkey(Path(folder)) as valkey:
            row = asyncio.run(_rounds(valkey, in_flight, setting.pick(WINDOW, 0.3)))
            report.rows.append(row | asyncio.run(_jobs(valkey, in_flight, setting.pick(JOBS, 2))))
    rates = {row["jobs in flight"]: row["rounds/s"] for row in report.rows}
    for in_flight, rate in rates.items():
        report.claims.append(Claim(f"(g) rounds/s, {in_flight} jobs in flight", rate, BOUND))
    few, most = report.rows[0], report.rows[-1]
    growth = most["round latency, ms"] / few["round latency, ms"]
    linear = growth / (most["jobs in flight"] / few["jobs in flight"])
    report.claims.append(Claim("(g) growth of latency over growth of jobs", linear, LATENCY_BOUND, least=False))
    return report


async def _submit(valkey: EmbeddedValkey, jobs: int, *, rounds: int, prefix: str, in_flight: int) -> Settings:
    """Queue jobs under a prefix of their own; the settings with which they are to be run."""
    settings = Settings(
        _env_file=None,
        redis_url=valkey.url,
        key_prefix=prefix,
        jobs_per_coordinator=in_flight,
        max_queued=jobs + 1,
        lease=LEASE,
        offer_ttl=LEASE,
    )
    store = JobStore.from_url(valkey.url, settings)
    for _ in range(jobs):
        await store.submit(_job(rounds))
    await store.aclose()
    return settings


def _coordinator(settings: Settings, sampler: StubSampler) -> Coordinator:
    return Coordinator(settings.model_dump(mode="json"), {"glyphs": sampler}, {"classifier": StubVerifier()})


async def _jobs(valkey: EmbeddedValkey, in_flight: int, jobs: int) -> dict[str, Any]:
    """Jobs of one round, claimed, run and ended."""
    settings = await _submit(valkey, jobs, rounds=0, prefix="jobs", in_flight=in_flight)
    gate = asyncio.Event()
    gate.set()
    begin, coordinator = time.perf_counter(), _coordinator(settings, StubSampler(gate))
    while coordinator.counters["jobs_total"] < jobs:
        await asyncio.sleep(0.01)
    return {"jobs/s": jobs / (time.perf_counter() - begin)}


async def _rounds(valkey: EmbeddedValkey, in_flight: int, window: float) -> dict[str, Any]:
    """Rounds of jobs that do not end."""
    gate = asyncio.Event()
    sampler, begin = StubSampler(gate), time.perf_counter()
    settings = await _submit(valkey, in_flight, rounds=ROUNDS, prefix="rounds", in_flight=in_flight)
    submitted = time.perf_counter()
    coordinator = _coordinator(settings, sampler)
    while sampler.waiting < in_flight:
        await asyncio.sleep(0.01)
    claimed = time.perf_counter()
    gate.set()
    while coordinator.counters["rounds_total"] < in_flight:
        await asyncio.sleep(0.1)
    rounds, cpu, redis_cpu, start = (
        coordinator.counters["rounds_total"],
        time.process_time(),
        _processor_seconds(valkey.pid),
        time.perf_counter(),
    )
    enough = rounds + in_flight
    # A busy loop wakes late: time is what passed, not what was asked for.
    while (seconds := time.perf_counter() - start) < window or coordinator.counters["rounds_total"] < enough:
        await asyncio.sleep(0.1)
    rounds = coordinator.counters["rounds_total"] - rounds
    shares = (time.process_time() - cpu) / seconds, (_processor_seconds(valkey.pid) - redis_cpu) / seconds
    rate = rounds / seconds
    return {
        "jobs in flight": in_flight,
        "rounds/s": rate,
        "round latency, ms": 1000 * in_flight / max(rate, 1e-9),  # Little's law
        "submitted/s": in_flight / (submitted - begin),
        "claimed/s": in_flight / (claimed - submitted),
        "CPU of coordinator": shares[0],
        "CPU of Valkey": shares[1],
    }


def _job(rounds: int) -> Job:
    request = GenerateRequest.model_validate(
        {
            "model": "glyphs",
            "condition": {"class": "Q"},
            "budget": {"nfe": STEPS * (NEIGHBORS * rounds + 1)},
            "verifier": "classifier",
            "search": {"algorithm": "zero_order", "preset": "paper", "neighbors": NEIGHBORS},
            "sampler": {"method": "euler", "steps": STEPS},
        }
    )
    return Job(id=uuid.uuid4().hex, request=request, class_indices=(16,), created_at=time.time())


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
