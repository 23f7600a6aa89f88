"""(c) A mixed load with Poisson arrivals: step-level against request-level batching against one request at a time.

Requests ask for 1 to 8 images of 8 to 64 Euler steps, guided or not. The engine is real and so is the time that its
scheduling takes; a forward's own time is looked up in a table that was measured on the network in the same run, so that
hundreds of requests can be replayed. Time is that of the clock so advanced.

Request-level batching takes what waits, in order, up to the rows of a forward, runs it until its last request ends, and
answers all of it then (`@serve.batch`). It may mix steps and guidance, which few such servers do. Three ways to count a
forward: padded to the full batch (one compiled shape or CUDA graph, or a device that a small forward does not fill), to
the next of the sizes of the service's default (for reproducible images), or at the size that it has.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from bench.common import Claim, Instant, Report, Setting, glyphs, orders, quantile, spread
from sitsearch.models.batch_sizes import halvings
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import FINE, filling
from sitsearch.workers.engine.orders import Order

BATCH = 32
STEPS, IMAGES = (8, 16, 32, 64), (1, 2, 4, 8)
REQUESTS, REPEATS = 120, 9
#: The sizes of forwards, and the loads that are measured with them.
FORWARDS: dict[str, tuple[tuple[int, ...] | None, tuple[float, ...]]] = {
    "full": ((BATCH,), (0.5, 0.8, 1.0, 1.2)),
    "some sizes": (halvings(BATCH, FINE), (0.5, 0.8, 1.0, 1.2)),
    "as they are": (None, (0.8, 1.0)),
}
#: A request is in time when it took at most so many times as long as alone on an idle device.
PATIENCE = 5.0
BOUND = 1.5
#: The load at which the bound is judged.
JUDGED = 1.0


@dataclass(frozen=True)
class Request:
    """One arrival."""

    at: float
    orders: list[Order]

    @property
    def steps(self) -> int:
        """Forwards that it takes, alone."""
        return self.orders[0].sampler.steps

    @property
    def rows(self) -> int:
        """Network rows of one of its forwards."""
        return len(self.orders) * self.orders[0].sampler.rows


class Costs:
    """Seconds of a forward by its rows: measured at a few sizes, linear between them."""

    def __init__(self, generator: SiTGenerator, sizes: Sequence[int], repeats: int) -> None:
        self._table = [(size, _forward(generator, size, repeats)) for size in sizes]

    def __call__(self, rows: int) -> float:
        low = self._table[0]
        for high in self._table[1:]:
            if rows <= high[0]:
                part = max(0.0, (rows - low[0]) / (high[0] - low[0]))
                return low[1] + part * (high[1] - low[1])
            low = high
        return low[1]


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(c) mixed load, Poisson arrivals")
    generator = glyphs(setting.device)
    costs = Costs(generator, setting.pick((1, 2, 4, 8, 16, 24, 32), (1, BATCH)), setting.pick(5, 1))
    count, repeats = setting.pick((REQUESTS, REPEATS), (12, 1))
    for forwards, (sizes, loads) in FORWARDS.items():
        report.notes.append(f"forwards {forwards}: step-level batching fills {_fill(costs, sizes)} of {BATCH} rows")
        for load in setting.pick(loads, (JUDGED,)):
            outcomes: dict[str, list[dict[str, float]]] = {}
            for repeat in range(repeats):
                requests = _arrivals(load * BATCH / costs(BATCH), count, seed=repeat)
                for name, serve in POLICIES.items():
                    latencies, end = serve(generator, requests, costs, sizes)
                    outcomes.setdefault(name, []).append(_judge(requests, latencies, end, costs, sizes))
            for name, found in outcomes.items():
                figures = {key: spread([one[key] for one in found]) for key in found[0]}
                report.rows.append({"forwards": forwards, "load": load, "batching": name} | figures)
            if load == JUDGED:
                pairs = list(zip(outcomes["step-level"], outcomes["request-level"], strict=True))
                at = f"(c) step-level / request-level at load {load:g}, forwards {forwards}"
                for what, bound, least in (("goodput NFE/s", BOUND, True), ("p95 s", 1.0, False)):
                    ratio = spread([a[what] / max(b[what], 1e-9) for a, b in pairs])["median"]
                    report.claims.append(Claim(f"{at}: {what}", ratio, bound, least))
    return report


def _arrivals(rows_per_second: float, count: int, *, seed: int) -> list[Request]:
    """Poisson arrivals whose network rows come at that rate."""
    rng = random.Random(seed)
    works = [(rng.choice(STEPS), rng.choice(IMAGES), rng.choice((1.0, 1.5))) for _ in range(count)]
    rows = sum(steps * images * (2 if guidance != 1 else 1) for steps, images, guidance in works)
    rate, now, requests = rows_per_second * count / rows, 0.0, []
    for number, (steps, images, guidance) in enumerate(works):
        now += rng.expovariate(rate)
        requests.append(Request(now, orders(images, steps=steps, guidance=guidance, seed=number)))
    return requests


class _Clock:
    """An engine whose forwards take the time that the table says."""

    def __init__(self, generator: SiTGenerator, costs: Costs, sizes: Sizes) -> None:
        self._instant, self._costs = Instant(generator), costs
        self.engine = Engine(self._instant, batch=BATCH, deterministic=False, buckets=sizes, latent_bytes=0)
        self.now = 0.0

    def step(self) -> Iterator[int]:
        """One forward; the tickets that it finished."""
        begin, before = time.perf_counter(), self.engine.steps
        done = self.engine.step()
        self.now += time.perf_counter() - begin
        if self.engine.steps > before:
            self.now += self._costs(self._instant.rows_evaluated)
        return (d.ticket for d in done)


Served = tuple[list[float], float]
Sizes = tuple[int, ...] | None


def _step_level(generator: SiTGenerator, requests: Sequence[Request], costs: Costs, sizes: Sizes) -> Served:
    """Every request joins at the next forward, and is answered when it ends."""
    clock, waiting, tickets = _Clock(generator, costs, sizes), deque(enumerate(requests)), dict[int, int]()
    clock.engine.fill = _fill(costs, sizes)
    latencies = [0.0] * len(requests)
    while waiting or clock.engine.busy:
        while waiting and waiting[0][1].at <= clock.now:
            number, request = waiting.popleft()
            tickets[clock.engine.submit(str(number), request.orders)] = number
        if not clock.engine.busy:
            clock.now = waiting[0][1].at
            continue
        for ticket in clock.step():
            number = tickets.pop(ticket)
            latencies[number] = clock.now - requests[number].at
    return latencies, clock.now


def _in_batches(most: int) -> Callable[[SiTGenerator, Sequence[Request], Costs, Sizes], Served]:
    """What waits is run together, `most` requests at most, until the last of them ends."""

    def serve(generator: SiTGenerator, requests: Sequence[Request], costs: Costs, sizes: Sizes) -> Served:
        clock, waiting = _Clock(generator, costs, sizes), deque(enumerate(requests))
        latencies = [0.0] * len(requests)
        while waiting:
            clock.now = max(clock.now, waiting[0][1].at)
            batch: list[tuple[int, Request]] = []
            while waiting and waiting[0][1].at <= clock.now and len(batch) < most:
                if sum(r.rows for _, r in batch) + waiting[0][1].rows > BATCH:
                    break
                batch.append(waiting.popleft())
            for number, request in batch:
                clock.engine.submit(str(number), request.orders)
            while clock.engine.busy:
                for _ in clock.step():
                    pass
            for number, request in batch:
                latencies[number] = clock.now - request.at
        return latencies, clock.now

    return serve


POLICIES = {
    "step-level": _step_level,
    "request-level": _in_batches(BATCH),
    "one at a time": _in_batches(1),
}


def _judge(
    requests: Sequence[Request], latencies: Sequence[float], end: float, costs: Costs, sizes: Sizes
) -> dict[str, float]:
    in_time = 0
    for request, latency in zip(requests, latencies, strict=True):
        alone = request.steps * costs(_padded(request.rows, sizes))
        in_time += request.steps * request.rows * (latency <= PATIENCE * alone)
    whole = sum(request.steps * request.rows for request in requests)
    return {
        "goodput NFE/s": in_time / end,
        "throughput NFE/s": whole / end,
        "p50 s": quantile(latencies, 0.5),
        "p95 s": quantile(latencies, 0.95),
        "p99 s": quantile(latencies, 0.99),
    }


def _fill(costs: Costs, sizes: Sizes) -> int:
    """What the engine chooses, see `Engine.measure`."""
    return filling(BATCH, lambda rows: rows / costs(_padded(rows, sizes)))


def _padded(rows: int, sizes: Sizes) -> int:
    return next((size for size in sizes or () if size >= rows), rows)


def _forward(generator: SiTGenerator, size: int, repeats: int) -> float:
    """Seconds of one forward of `size` rows: the median."""
    x, t = torch.zeros(size, *generator.shape), torch.full((size,), 0.5)
    rows, times = generator.unconditional(size), []
    for _ in range(repeats + 1):
        begin = time.perf_counter()
        generator.evaluate(x, t, rows)
        times.append(time.perf_counter() - begin)
    return spread(times[1:])["median"]
