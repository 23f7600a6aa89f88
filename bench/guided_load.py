"""(h) What jobs that a verifier's gradient guides cost the jobs beside them.

Half the requests of a mixed load are followed. The other half asks for the same forwards twice: not guided, and guided,
where a verifier on a device of its own answers each call in `CALL` forwards. Those that are followed must not tell the
difference: rows that wait for gradients leave the forwards to them. Time is as in `bench.arrivals`; what the engine
does to guided rows between forwards is measured and counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench.arrivals import BATCH, Clock, Costs, Request, arrivals, judged
from bench.common import Claim, Report, Setting, glyphs, spread
from sitsearch.models.batch_sizes import halvings
from sitsearch.workers.engine.forwards import FINE
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.guides import Gradient
from sitsearch.workers.jobs.recipe import Integrate, Recipe

REQUESTS, REPEATS, LOADS = 120, 9, (0.5, 0.8, 1.0)
SIZES = halvings(BATCH, FINE)
#: Of a call for gradients, in forwards of a full batch: a verifier about as slow as the model.
CALL = 1.0
BOUND = 0.95


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(h) plain jobs beside guided ones")
    generator = glyphs(setting.device)
    costs = Costs(generator, setting.pick((1, 2, 4, 8, 16, 24, 32), (1, BATCH)), setting.pick(5, 1))
    count, repeats = setting.pick((REQUESTS, REPEATS), (12, 1))
    for load in setting.pick(LOADS, LOADS[-1:]):
        found: dict[str, list[dict[str, float]]] = {"plain": [], "guided": []}
        for repeat in range(repeats):
            plain = arrivals(load * BATCH / costs(BATCH), count, seed=repeat)
            for beside, requests in {"plain": plain, "guided": _half_guided(plain)}.items():
                clock = Clock(generator, costs, SIZES, gradients=CALL * costs(BATCH))
                latencies = clock.serve(requests)[0][::2]
                end = max(request.at + latency for request, latency in zip(plain[::2], latencies, strict=True))
                found[beside].append(judged(plain[::2], latencies, end, costs, SIZES))
        for beside, outcomes in found.items():
            figures = {key: spread([one[key] for one in outcomes]) for key in outcomes[0]}
            report.rows.append({"load": load, "beside": beside} | figures)
        pairs = list(zip(found["guided"], found["plain"], strict=True))
        for what, bound, least in (("goodput NFE/s", BOUND, True), ("p95 s", 1 / BOUND, False)):
            ratio = spread([a[what] / max(b[what], 1e-9) for a, b in pairs])["median"]
            report.claims.append(
                Claim(f"(h) beside guided / beside plain at load {load:g}: {what}", ratio, bound, least)
            )
    return report


def _half_guided(requests: Sequence[Request]) -> list[Request]:
    """Every other request, with a gradient at the steps that are guided by default."""
    return [
        replace(request, orders=[_guided(order) for order in request.orders]) if number % 2 else request
        for number, request in enumerate(requests)
    ]


def _guided(order: Order) -> Order:
    (op,) = order.recipe.ops
    assert isinstance(op, Integrate)
    recipe = Recipe(seed=order.recipe.seed, round=0, index=order.recipe.index)
    guide = Gradient(verifier="verifier", noise=0.0)
    return replace(order, recipe=recipe.then(op.model_copy(update={"guide": guide})))
