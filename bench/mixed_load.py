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

from collections import deque
from collections.abc import Callable, Sequence

from bench.arrivals import BATCH, Clock, Costs, Request, Served, Sizes, arrivals, fill, judged
from bench.common import Claim, Report, Setting, glyphs, spread
from sitsearch.models.batch_sizes import halvings
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.forwards import FINE

REQUESTS, REPEATS = 120, 9
#: The sizes of forwards, and the loads that are measured with them.
FORWARDS: dict[str, tuple[tuple[int, ...] | None, tuple[float, ...]]] = {
    "full": ((BATCH,), (0.5, 0.8, 1.0, 1.2)),
    "some sizes": (halvings(BATCH, FINE), (0.5, 0.8, 1.0, 1.2)),
    "as they are": (None, (0.8, 1.0)),
}
BOUND = 1.5
#: The load at which the bound is judged.
JUDGED = 1.0


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(c) mixed load, Poisson arrivals")
    generator = glyphs(setting.device)
    costs = Costs(generator, setting.pick((1, 2, 4, 8, 16, 24, 32), (1, BATCH)), setting.pick(5, 1))
    count, repeats = setting.pick((REQUESTS, REPEATS), (12, 1))
    for forwards, (sizes, loads) in FORWARDS.items():
        report.notes.append(f"forwards {forwards}: step-level batching fills {fill(costs, sizes)} of {BATCH} rows")
        for load in setting.pick(loads, (JUDGED,)):
            outcomes: dict[str, list[dict[str, float]]] = {}
            for repeat in range(repeats):
                requests = arrivals(load * BATCH / costs(BATCH), count, seed=repeat)
                for name, serve in POLICIES.items():
                    latencies, end = serve(generator, requests, costs, sizes)
                    outcomes.setdefault(name, []).append(judged(requests, latencies, end, costs, sizes))
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


def _step_level(generator: SiTGenerator, requests: Sequence[Request], costs: Costs, sizes: Sizes) -> Served:
    """Every request joins at the next forward, and is answered when it ends."""
    return Clock(generator, costs, sizes).serve(requests)


def _in_batches(most: int) -> Callable[[SiTGenerator, Sequence[Request], Costs, Sizes], Served]:
    """What waits is run together, `most` requests at most, until the last of them ends."""

    def serve(generator: SiTGenerator, requests: Sequence[Request], costs: Costs, sizes: Sizes) -> Served:
        clock, waiting = Clock(generator, costs, sizes), deque(enumerate(requests))
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
