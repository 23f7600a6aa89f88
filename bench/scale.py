"""What 1,000 sampler replicas and 100,000 jobs would do: a discrete-event simulation, seeded by measured figures.

A job waits in Redis until a coordinator has room for it, and is then a chain of rounds: some of a coordinator's
processor, N trajectories spread over a few replicas, some of Redis. Coordinators and Redis take one call after another:
for as long as the benchmark of the control plane measured, and coordinators besides for as long as calls through Ray
Serve take their caller, which is measured here (`bench.handles`). A replica makes `DEVICE_ROWS` network rows a second,
shared by the rounds that are there; a round takes at least as many full forwards as its trajectories have steps. The
network between machines, verifiers and faults are left out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import simpy

from bench import handles
from bench.common import Report, Setting, quantile

#: Network rows a second of one replica: SiT-XL/2 at 256x256, 237 GFLOP a row, at 60% of 700 TFLOP/s (assumed).
DEVICE_ROWS = 1770.0
BATCH = 64
REPLICAS, JOBS = 1000, 100_000
#: Of what the replicas could do, how much is asked of them while jobs arrive.
LOAD = 0.8
NEIGHBORS, ROUNDS = 8, (2, 4, 8)
MEASURED = "g.json"


@dataclass(frozen=True)
class Costs:
    """Seconds of a round: of one coordinator's processor, for a call of a replica besides, and of Redis's."""

    coordinator: float
    call: float
    redis: float


@dataclass(frozen=True)
class Design:
    """What is varied.

    Attributes:
        coordinators: processes.
        jobs_each: that one coordinator holds at once.
        spread: replicas that share a round.
        shards: Redis servers.
        steps: of a trajectory.
    """

    coordinators: int
    jobs_each: int
    spread: int
    shards: int
    steps: int


DESIGNS = (
    Design(1, 16, 8, 1, 50),
    Design(1, 10_000, 8, 1, 50),
    Design(32, 2500, 8, 1, 50),
    Design(32, 2500, 1, 1, 50),
    Design(128, 2500, 8, 1, 50),
    Design(128, 2500, 1, 1, 8),
    Design(128, 2500, 1, 8, 8),
)


class Server:
    """Takes calls one after another; `free` is when it has done all that came so far."""

    def __init__(self) -> None:
        self.free = self.busy = 0.0

    def take(self, now: float, seconds: float) -> float:
        """Seconds until a call that comes now is done."""
        self.free = max(now, self.free) + seconds
        self.busy += seconds
        return self.free - now


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("scale: 1,000 replicas and 100,000 jobs, simulated")
    costs = measured(setting.out / MEASURED, call=handles.seconds_of_call())
    replicas, jobs = setting.pick((REPLICAS, JOBS), (4, 40))
    for design in DESIGNS:
        found = simulate(design, costs, replicas=replicas, jobs=jobs)
        what = {"coordinators": design.coordinators, "jobs each": design.jobs_each, "spread": design.spread}
        report.rows.append(what | {"Redis shards": design.shards, "steps": design.steps} | found)
    report.notes.append(
        f"a round takes {1e3 * costs.coordinator:.2f} ms of a coordinator's and {1e3 * costs.redis:.2f} ms of Redis's "
        f"processor ({MEASURED}), and each call of a replica {1e3 * costs.call:.2f} ms of the coordinator's"
    )
    return report


def measured(path: Path, *, call: float) -> Costs:
    """From the benchmark of the control plane at 1,000 jobs in flight, and what a `call` was found to take."""
    if not path.exists():
        raise SystemExit(f"the simulation needs {path}: python -m bench g")
    rows = json.loads(path.read_text())["rows"]
    row = next((row for row in rows if row["jobs in flight"] == 1000), rows[-1])
    return Costs(row["CPU of coordinator"] / row["rounds/s"], call, row["CPU of Valkey"] / row["rounds/s"])


def simulate(design: Design, costs: Costs, *, replicas: int, jobs: int, seed: int = 0) -> dict[str, Any]:
    """Run a design until its last job is done.

    Returns:
        What was busy for which part of the time, the waits of jobs for a coordinator, and how many times as long jobs
        took as alone.
    """
    rng, env = random.Random(seed), simpy.Environment()
    room = simpy.Resource(env, capacity=design.coordinators * design.jobs_each)
    coordinators = [Server() for _ in range(design.coordinators)]
    shards = [Server() for _ in range(design.shards)]
    devices = [Server() for _ in range(replicas)]
    parts = min(design.spread, NEIGHBORS, replicas)
    part = NEIGHBORS // parts * design.steps / DEVICE_ROWS
    thought = costs.coordinator + (parts + 1) * costs.call  # one more for the verifier
    least = design.steps * BATCH / DEVICE_ROWS
    waits: list[float] = []
    slowdowns: list[float] = []

    def job(number: int) -> Generator[Any, Any, None]:
        begin, rounds, first = env.now, rng.choice(ROUNDS), rng.randrange(replicas)
        coordinator, shard = coordinators[number % len(coordinators)], shards[number % len(shards)]
        with room.request() as turn:
            yield turn
            waits.append(env.now - begin)
            for _ in range(rounds):
                yield env.timeout(coordinator.take(env.now, thought))
                ends = [devices[(first + slot) % replicas].take(env.now, part) for slot in range(parts)]
                yield env.timeout(max(least, *ends))
                yield env.timeout(shard.take(env.now, costs.redis))
        alone = rounds * (thought + least + costs.redis)
        slowdowns.append((env.now - begin) / alone)

    work = jobs * sum(ROUNDS) / len(ROUNDS) * parts * part / replicas
    rate = LOAD * jobs / work

    def arrive() -> Generator[Any, Any, None]:
        for number in range(jobs):
            yield env.timeout(rng.expovariate(rate))
            env.process(job(number))

    env.process(arrive())
    env.run()

    def share(servers: list[Server]) -> float:
        return sum(server.busy for server in servers) / len(servers) / env.now

    return {
        "replicas busy": share(devices),
        "coordinators busy": share(coordinators),
        "Redis busy": share(shards),
        "wait p50 s": quantile(waits, 0.5),
        "wait p99 s": quantile(waits, 0.99),
        "slowdown p50": quantile(slowdowns, 0.5),
        "slowdown p99": quantile(slowdowns, 0.99),
        "all done after s": env.now,
    }
