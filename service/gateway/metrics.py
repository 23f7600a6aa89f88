"""What Prometheus reads: the gateway's own requests, and queue, jobs and workers as the store knows them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.job import Status
from sitsearch.workers.jobs.store import JobStore

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
_BUCKETS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class HttpMetrics:
    """Counts and times requests by route, never by address, so that their number stays small."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "sitsearch_http_requests", "Requests answered.", ("method", "route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "sitsearch_http_request_seconds",
            "Time from a request to the end of its answer (long polls and event streams included).",
            ("method", "route"),
            buckets=_BUCKETS,
            registry=self.registry,
        )

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)


class MetricsMiddleware:
    """Observes every request of an application."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            route = getattr(scope.get("route"), "path", "unmatched")
            self.metrics.observe(scope["method"], route, status, time.perf_counter() - start)


class _StoreFigures(Collector):
    """What was read from the store for one scrape; None when it was away."""

    def __init__(self, jobs: Mapping[Status, int] | None, workers: Mapping[str, Mapping[str, float]]) -> None:
        self._jobs, self._workers = jobs, workers

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("sitsearch_store_up", "Redis answers.", value=float(self._jobs is not None))
        if self._jobs is None:
            return
        yield GaugeMetricFamily("sitsearch_queue_depth", "Jobs that wait.", value=self._jobs[Status.QUEUED])
        jobs = GaugeMetricFamily("sitsearch_jobs", "Jobs in the store.", labels=("status",))
        for status, count in self._jobs.items():
            jobs.add_metric((status.value,), count)
        yield jobs
        for figure in sorted({name for report in self._workers.values() for name in report}):
            if not _NAME.fullmatch(figure):
                continue
            kind = CounterMetricFamily if figure.endswith("_total") else GaugeMetricFamily
            family = kind(f"sitsearch_worker_{figure}", "As a worker reports it.", labels=("worker",))
            for worker, report in self._workers.items():
                if figure in report:
                    family.add_metric((worker,), report[figure])
            yield family


async def render(http: HttpMetrics, store: JobStore) -> bytes:
    """The page in Prometheus's text format; without the store's part when Redis is away."""
    try:
        figures = _StoreFigures(await store.counts(), await store.worker_metrics())
    except StoreUnavailable:
        figures = _StoreFigures(None, {})
    registry = CollectorRegistry()
    registry.register(figures)
    return generate_latest(http.registry) + generate_latest(registry)
