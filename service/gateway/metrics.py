"""What `/metrics` shows: requests of this gateway process, and the workers' counters as the store has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

HELP = {
    "nfe": "Function evaluations spent on rounds that were logged",
    "forwards": "Network rows spent on rounds that were logged",
    "candidates": "Candidates sampled and scored",
    "rounds": "Rounds logged",
    "jobs": "Jobs brought to their end",
}


class Metrics:
    """The gateway's own metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sitsearch_http_requests", "Requests answered", ("method", "route", "status"), registry=self.registry
        )
        self.latency = Histogram(
            "sitsearch_http_request_seconds", "Time to answer", ("method", "route"), registry=self.registry
        )
        self.submitted = Counter("sitsearch_jobs_submitted", "Jobs accepted", registry=self.registry)

    def exposition(self, depth: tuple[int, int], workers: Mapping[str, Mapping[str, float]]) -> bytes:
        """Prometheus text: these, the queue's depth `(waiting, running)`, and the workers' counters."""
        return generate_latest(self.registry) + generate_latest(_Shared(depth, workers))  # type: ignore[arg-type]


class _Shared:
    """A one-off registry of what every gateway shows alike."""

    def __init__(self, depth: tuple[int, int], workers: Mapping[str, Mapping[str, float]]) -> None:
        self._depth, self._workers = depth, workers

    def collect(self) -> Iterable[Metric]:
        queue = GaugeMetricFamily("sitsearch_jobs", "Jobs that have not ended", labels=["status"])
        for status, count in zip(("queued", "running"), self._depth, strict=True):
            queue.add_metric([status], count)
        yield queue
        for name, text in HELP.items():
            family = CounterMetricFamily(f"sitsearch_{name}", text, labels=["coordinator"])
            for worker, values in self._workers.items():
                family.add_metric([worker], values.get(f"{name}_total", 0))
            yield family
