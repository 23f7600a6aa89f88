"""The gateway's routes."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from service.gateway import problems
from service.gateway.body import parse_json, parse_request, read_body
from service.gateway.checks import check
from service.gateway.metrics import Metrics
from service.gateway.problems import FieldError, Invalid, NoImage, Problem, UnknownJob
from service.gateway.views import job_view
from workers.jobs.errors import StoreUnavailable
from workers.jobs.schemas import GenerateRequest, Job, Offer, Progress, Round, Status
from workers.jobs.store import JobStore
from workers.settings import Settings

MAX_WAIT = 60
MAX_PAGE = 200
KEEP_ALIVE = 15.0
MAX_KEY = 255
PNG = "image/png"


def create_app(settings: Settings, store: JobStore) -> FastAPI:
    """The gateway over a store."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await store.close()

    app = FastAPI(title="sitsearch", version="0.1.0", summary="Search for better noise", lifespan=lifespan)
    problems.install(app)
    metrics = Metrics()

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        start = time.perf_counter()
        response = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "(none)")
        metrics.requests.labels(request.method, route, response.status_code).inc()
        metrics.latency.labels(request.method, route).observe(time.perf_counter() - start)
        return response

    async def offer() -> Offer:
        offered = await store.offer()
        if offered is None:
            detail = "no workers are up yet; try again"
            raise Problem(503, "no-workers", detail, headers={"Retry-After": problems.RETRY_AFTER})
        return offered

    async def known(job_id: str) -> Job:
        job = await store.get(job_id)
        if job is None:
            raise UnknownJob(problems.printable(job_id))
        return job

    async def view(job: Job) -> dict[str, Any]:
        position = await store.queue_position(job.id) if job.status is Status.QUEUED else None
        return job_view(job, position)

    @app.post(
        "/generate",
        status_code=202,
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": GenerateRequest.model_json_schema(by_alias=True)}},
            }
        },
    )
    async def generate(
        request: Request, idempotency_key: Annotated[str | None, Header(max_length=MAX_KEY)] = None
    ) -> Response:
        """Submit a search; 202 with the job, or 200 with the first one for a repeated Idempotency-Key."""
        body = await read_body(request, settings.max_body)
        wanted = parse_request(parse_json(body, request.headers.get("content-type")))
        index = check(wanted, await offer(), max_nfe=settings.max_nfe)
        job = Job(
            id=secrets.token_hex(12),
            request=wanted,
            class_index=index,
            created_at=time.time(),
            progress=Progress(nfe_budget=wanted.budget.nfe, forwards_budget=wanted.budget.forwards),
        )
        digest = hashlib.sha256(wanted.model_dump_json().encode()).hexdigest()
        job, created = await store.submit(job, idempotency_key=idempotency_key, body_digest=digest)
        if created:
            metrics.submitted.inc()
        shown = await view(job)
        return JSONResponse(shown, 202 if created else 200, headers={"Location": shown["links"]["self"]})

    @app.get("/jobs")
    async def jobs(
        status: Status | None = None,
        cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,12}$")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
    ) -> dict[str, Any]:
        """Jobs, newest first."""
        page, following = await store.list(status=status, cursor=cursor, limit=limit)
        return {"jobs": [job_view(job) for job in page], "next_cursor": following}

    @app.get("/jobs/{job_id}")
    async def job(job_id: str, prefer: Annotated[str | None, Header()] = None) -> dict[str, Any]:
        """A job; with `Prefer: wait=N`, once it has ended or after N seconds."""
        found = await known(job_id)
        if (seconds := _wait_of(prefer)) and not found.status.terminal:
            found = await store.wait(job_id, seconds) or found
        return await view(found)

    @app.get("/jobs/{job_id}/events")
    async def events(
        request: Request, job_id: str, last_event_id: Annotated[str, Header(pattern=r"^[0-9]{1,20}-[0-9]{1,20}$")] = "0-0"
    ) -> Response:
        """Server-sent events: the job's body at each change, until it ends; resumes after `Last-Event-ID`."""
        await known(job_id)

        async def stream() -> AsyncIterator[str]:
            async for event in store.events(job_id, last_event_id, block=KEEP_ALIVE):
                if await request.is_disconnected():
                    return
                if event is None:
                    yield ": keep-alive\n\n"
                    continue
                current = await store.get(job_id)
                if current is None:
                    return
                data = JSONResponse(job_view(current)).body
                yield f"id: {event[0]}\nevent: {event[1]}\ndata: {bytes(data).decode()}\n\n"
                if Status.__members__.get(event[1].upper(), Status.QUEUED).terminal:
                    return

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    @app.get("/jobs/{job_id}/images/{rank}")
    async def image(
        job_id: str, rank: int, if_none_match: Annotated[str | None, Header()] = None
    ) -> Response:
        """The PNG of one of the best candidates, so far or in the end; its text chunks hold recipe and scores."""
        found = await known(job_id)
        candidate = await _ranked(store, found, rank)
        png = None if candidate is None else await store.image(job_id, candidate)
        if png is None:
            raise NoImage(job_id, rank)
        etag = f'"{hashlib.sha256(png).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if if_none_match is not None and etag in (tag.strip() for tag in if_none_match.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(png, media_type=PNG, headers=headers)

    @app.post("/jobs/{job_id}/cancel")
    async def cancel(job_id: str) -> dict[str, Any]:
        """Cancel a job; one that has ended stays as it is."""
        job = await store.cancel(job_id)
        if job is None:
            raise UnknownJob(problems.printable(job_id))
        return await view(job)

    @app.get("/models")
    async def models() -> dict[str, Any]:
        """The models that can be sampled here."""
        return {"models": [model.model_dump(mode="json") for model in (await offer()).models]}

    @app.get("/verifiers")
    async def verifiers() -> dict[str, Any]:
        """The verifiers that can select here."""
        return {"verifiers": [verifier.model_dump(mode="json") for verifier in (await offer()).verifiers]}

    @app.get("/algorithms")
    async def algorithms() -> dict[str, Any]:
        """The search algorithms, each with the JSON schema of its options."""
        return {"algorithms": [algorithm.model_dump(mode="json") for algorithm in (await offer()).algorithms]}

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """This process is alive."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Redis answers and workers have said what they offer."""
        await offer()
        return {"status": "ready"}

    @app.get("/metrics")
    async def show_metrics() -> Response:
        """Prometheus text."""
        try:
            shared = await asyncio.gather(store.queue_depth(), store.worker_metrics())
        except StoreUnavailable:
            shared = [(0, 0), {}]  # the gateway's own metrics matter most when the store is away
        return Response(metrics.exposition(*shared), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


async def _ranked(store: JobStore, job: Job, rank: int) -> str | None:
    """The candidate at `rank`: of the result, or of the rounds so far."""
    if job.result is not None:
        return job.result.images[rank].candidate.id if 0 <= rank < len(job.result.images) else None
    rounds: list[Round] = await store.rounds(job.id)
    candidates = [candidate for logged in rounds for candidate in logged.candidates]
    candidates.sort(key=lambda candidate: -candidate.scores[job.request.verifier.name])
    return candidates[rank].id if 0 <= rank < min(len(candidates), job.request.num_images) else None


def _wait_of(prefer: str | None) -> int:
    """Seconds of a `Prefer: wait=N` header (RFC 7240); 0 without one.

    Raises:
        Invalid: N is not a number from 0 to 60.
    """
    for preference in (prefer or "").split(","):
        name, _, value = preference.strip().partition("=")
        if name.strip().lower() == "wait":
            text = value.strip().strip('"')
            if not (text.isascii() and text.isdigit() and len(text) < 4 and int(text) <= MAX_WAIT):
                message = f"wait must be a number of seconds from 0 to {MAX_WAIT}"
                raise Invalid("invalid-request", [FieldError(field="Prefer", message=message)])
            return int(text)
    return 0
