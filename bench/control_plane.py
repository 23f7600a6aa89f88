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
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import Claim, Report, Setting
from sitsearch.models.catalog import model_card
from sitsearch.models.condition import Condition
from sitsearch.workers.engine.offers import METHODS
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.jobs.job import Job
from sitsearch.workers.jobs.offer import ModelOffer, VerifierOffer
from sitsearch.workers.jobs.request import GenerateRequest, SamplerChoice
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.search.sampling import Sampling
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


class _Call:
    """What a Serve handle's method is to its caller."""

    def __init__(self, answer: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self._answer = answer

    def remote(self, *args: Any) -> asyncio.Task[Any]:
        return asyncio.ensure_future(self._answer(*args))


class _Sampler:
    """Images of nothing, at the planned cost, once the gate is open."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.gate, self.waiting, self.answered = gate, 0, 0
        self.sample, self.describe = _Call(self._sample), _Call(self._describe)

    def options(self, **_: Any) -> _Sampler:
        """As a Serve handle's: whoever is asked, the answer is the same."""
        return self

    async def _describe(self) -> ModelOffer:
        card = model_card("glyphs")
        return ModelOffer(
            name=card.name,
            title=card.title,
            classes=card.classes,
            image_size=card.image_size,
            parameters=1,
            macs_per_forward=1,
            samplers=tuple(METHODS.values()),
            default_sampler=SamplerChoice(**card.sampler),
            license=card.license,
            template=card.template,
            forwards_per_second=1.0,
        )

    async def _sample(self, job: str, orders: Sequence[Order], priority: float) -> Made[np.ndarray]:
        self.waiting += 1
        await self.gate.wait()
        self.answered += 1
        costs = [
            Sampling(method=METHODS[o.sampler.method], choice=o.sampler).cost(o.recipe, o.known, evaluated=o.evaluated)
            for o in orders
        ]
        images = np.zeros((len(orders), 32, 32, 3), dtype=np.uint8)
        return Made(images, costs, [cost * o.sampler.rows for cost, o in zip(costs, orders, strict=True)])


class _Verifier:
    """Scores from nowhere."""

    def __init__(self) -> None:
        self.score, self.describe = _Call(self._score), _Call(self._describe)

    async def _describe(self) -> VerifierOffer:
        return VerifierOffer(name="classifier", title="none", needs=("class",), models=("glyphs",))

    async def _score(
        self, images: np.ndarray, conditions: Sequence[Condition], _previews: object = None
    ) -> list[float]:
        return [float(i) for i in range(len(images))]


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


def _coordinator(settings: Settings, sampler: _Sampler) -> Coordinator:
    return Coordinator(settings.model_dump(mode="json"), {"glyphs": sampler}, {"classifier": _Verifier()})


async def _jobs(valkey: EmbeddedValkey, in_flight: int, jobs: int) -> dict[str, Any]:
    """Jobs of one round, claimed, run and ended."""
    settings = await _submit(valkey, jobs, rounds=0, prefix="jobs", in_flight=in_flight)
    gate = asyncio.Event()
    gate.set()
    begin, coordinator = time.perf_counter(), _coordinator(settings, _Sampler(gate))
    while coordinator.counters["jobs_total"] < jobs:
        await asyncio.sleep(0.01)
    return {"jobs/s": jobs / (time.perf_counter() - begin)}


async def _rounds(valkey: EmbeddedValkey, in_flight: int, window: float) -> dict[str, Any]:
    """Rounds of jobs that do not end."""
    gate = asyncio.Event()
    sampler, begin = _Sampler(gate), time.perf_counter()
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
            "search": {"algorithm": "zero_order", "neighbors": NEIGHBORS},
            "sampler": {"method": "euler", "steps": STEPS},
        }
    )
    return Job(id=uuid.uuid4().hex, request=request, class_indices=(16,), created_at=time.time())


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
