"""Requests that arrive as a Poisson process, and an engine that serves them on a clock of its own.

The engine is real and so is the time that its scheduling takes; a forward's own time is looked up in a table that was
measured on the network in the same run, so that hundreds of requests can be replayed. Time is that of the clock so
advanced.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.common import Instant, orders, quantile, spread
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import filling
from sitsearch.workers.engine.gradients import Wanted
from sitsearch.workers.engine.orders import Order

BATCH = 32
STEPS, IMAGES = (8, 16, 32, 64), (1, 2, 4, 8)
#: A request is in time when it took at most so many times as long as alone on an idle device.
PATIENCE = 5.0
#: Sizes of forwards; None is any.
Sizes = tuple[int, ...] | None
#: Seconds that each request took, and when the last was answered.
Served = tuple[list[float], float]


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


def arrivals(rows_per_second: float, count: int, *, seed: int) -> list[Request]:
    """Poisson arrivals whose network rows come at that rate."""
    rng = random.Random(seed)
    works = [(rng.choice(STEPS), rng.choice(IMAGES), rng.choice((1.0, 1.5))) for _ in range(count)]
    rows = sum(steps * images * (2 if guidance != 1 else 1) for steps, images, guidance in works)
    rate, now, requests = rows_per_second * count / rows, 0.0, []
    for number, (steps, images, guidance) in enumerate(works):
        now += rng.expovariate(rate)
        requests.append(Request(now, orders(images, steps=steps, guidance=guidance, seed=number)))
    return requests


class Clock:
    """An engine whose forwards take the time that the table says.

    Args:
        generator: the model.
        costs: the table.
        sizes: what forwards are padded to.
        gradients: seconds that a call for verifiers' gradients takes on devices of their own; None is no such device.
    """

    def __init__(self, generator: SiTGenerator, costs: Costs, sizes: Sizes, *, gradients: float | None = None) -> None:
        self._instant, self._costs, self._gradients = Instant(generator), costs, gradients
        source = None if gradients is None else self._ask
        self.engine = Engine(
            self._instant, batch=BATCH, deterministic=False, buckets=sizes, latent_bytes=0, gradients=source
        )
        self.engine.fill = fill(costs, sizes)
        self._due: deque[tuple[float, Future[Tensor], Tensor]] = deque()
        self.now = 0.0

    def step(self) -> Iterator[int]:
        """One forward; the tickets that it finished."""
        self._answer()
        begin, before = time.perf_counter(), self.engine.steps
        done = self.engine.step()
        self.now += time.perf_counter() - begin
        if self.engine.steps > before:
            self.now += self._costs(self._instant.rows_evaluated)
        return (d.ticket for d in done)

    def serve(self, requests: Sequence[Request]) -> Served:
        """Every request joins at the next forward, and is answered when it ends."""
        waiting, tickets = deque(enumerate(requests)), dict[int, int]()
        latencies = [0.0] * len(requests)
        while waiting or self.engine.busy:
            while waiting and waiting[0][1].at <= self.now:
                number, request = waiting.popleft()
                tickets[self.engine.submit(str(number), request.orders)] = number
            if not self.engine.busy or self.engine.waiting:
                self.now = max(self.now, min([r.at for _, r in waiting][:1] + [at for at, _, _ in self._due][:1]))
                self._answer()
                if not self.engine.busy or self.engine.waiting:
                    continue
            for ticket in self.step():
                number = tickets.pop(ticket)
                latencies[number] = self.now - requests[number].at
        return latencies, self.now

    def _ask(self, wanted: Wanted) -> Future[Tensor]:
        assert self._gradients is not None
        future: Future[Tensor] = Future()
        self._due.append((self.now + self._gradients, future, wanted.x))
        return future

    def _answer(self) -> None:
        """Hand out the gradients that are there by now."""
        while self._due and self._due[0][0] <= self.now:
            _, future, x = self._due.popleft()
            future.set_result(torch.ones_like(x))


def judged(
    requests: Sequence[Request], latencies: Sequence[float], end: float, costs: Costs, sizes: Sizes
) -> dict[str, float]:
    """What a service is judged by."""
    in_time = 0
    for request, latency in zip(requests, latencies, strict=True):
        alone = request.steps * costs(padded(request.rows, sizes))
        in_time += request.steps * request.rows * (latency <= PATIENCE * alone)
    whole = sum(request.steps * request.rows for request in requests)
    return {
        "goodput NFE/s": in_time / end,
        "throughput NFE/s": whole / end,
        "p50 s": quantile(latencies, 0.5),
        "p95 s": quantile(latencies, 0.95),
        "p99 s": quantile(latencies, 0.99),
    }


def fill(costs: Costs, sizes: Sizes) -> int:
    """What the engine chooses, see `Engine.measure`."""
    return filling(BATCH, lambda rows: rows / costs(padded(rows, sizes)))


def padded(rows: int, sizes: Sizes) -> int:
    """The size that a forward of so many rows has."""
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
