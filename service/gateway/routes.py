"""The HTTP contract: jobs, their images and events, what is offered, health and metrics."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Annotated, Any
from urllib.parse import urlencode
from weakref import WeakSet

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from sitsearch.service.gateway import sse
from sitsearch.service.gateway.body import read_json, validate
from sitsearch.service.gateway.candidates import with_start
from sitsearch.service.gateway.checks import admit
from sitsearch.service.gateway.metrics import HttpMetrics, render
from sitsearch.service.gateway.planning import ExtendRequest, PlanView, check_log, extension_of, plan_view
from sitsearch.service.gateway.problems import (
    Conflict,
    FieldError,
    ImageExpired,
    Invalid,
    NoWorkers,
    TooManyWatchers,
    UnknownResource,
)
from sitsearch.service.gateway.views import JobsView, JobView, PageLinks, job_view, ranked
from sitsearch.workers.jobs.errors import UnknownJob
from sitsearch.workers.jobs.job import Job, Progress, Status
from sitsearch.workers.jobs.offer import AlgorithmOffer, ModelOffer, Offer, VerifierOffer
from sitsearch.workers.jobs.proof import with_proof
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.records import Snapshot, event_order
from sitsearch.workers.search.lessons.priors import leaves_open, with_learnt
from sitsearch.workers.search.lessons.record import Learnt
from sitsearch.workers.settings import Settings

MAX_WAIT = 60
_MAX_KEY = 255
_MAX_PAGE = 200
_WAIT = re.compile(r'(?:^|[,;])\s*wait\s*=\s*"?(\d{1,9})"?\s*(?:$|[,;])', re.IGNORECASE)
_RANK = re.compile(r"[0-9]{1,4}", re.ASCII)

router = APIRouter()


@dataclass(frozen=True)
class Context:
    """What the routes work with.

    Attributes:
        settings: the settings.
        store: the job store.
        metrics: the requests so far.
        stopping: set when the gateway is to stop: long polls answer and event streams end.
        watchers: event streams and long polls that are open.
    """

    settings: Settings
    store: JobStore
    metrics: HttpMetrics
    stopping: asyncio.Event
    watchers: WeakSet[object] = field(default_factory=WeakSet)

    def watch(self, watcher: AsyncGenerator[Any] | asyncio.Future[Any]) -> None:
        """Count something as a watcher for as long as it lives.

        Raises:
            TooManyWatchers: there are as many as there may be.
        """
        if len(self.watchers) >= self.settings.max_watchers:
            raise TooManyWatchers(self.settings.max_watchers)
        self.watchers.add(watcher)

    async def snapshot(self, job_id: str) -> Snapshot:
        """The job.

        Raises:
            UnknownJob: there is none.
        """
        snapshot = await self.store.snapshot(job_id)
        if snapshot is None:
            raise UnknownJob(job_id[:100])
        return snapshot

    async def offer(self) -> Offer:
        """What the workers offer.

        Raises:
            NoWorkers: none has said so lately.
        """
        offer = await self.store.offer()
        if offer is None:
            raise NoWorkers
        return offer

    async def learnt(self, request: GenerateRequest) -> Learnt:
        """What finished searches with the request's model and verifier have taught."""
        return Learnt(await self.store.lessons(request.model, request.verifier.name))

    async def wait(self, job_id: str, seconds: int, request: Request) -> None:
        """Return when the job has ended, the time is over, the client has left or the gateway stops."""
        tasks: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(self.store.wait(job_id, seconds)),
            asyncio.ensure_future(self.stopping.wait()),
            asyncio.ensure_future(_left(request)),
        ]
        try:
            self.watch(tasks[0])
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if tasks[0].done():
                tasks[0].result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.watchers.discard(tasks[0])


async def _left(request: Request) -> None:
    """Return when the client of a request without a body has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


async def _root(request: Request) -> str:
    """The address prefix under which a proxy shows this application."""
    return str(request.scope.get("root_path", "")).rstrip("/")


Ctx = Annotated[Context, Depends(_context)]
Root = Annotated[str, Depends(_root)]


@router.post(
    "/generate",
    status_code=202,
    tags=["jobs"],
    response_model=JobView | PlanView,
    responses={200: {"model": JobView | PlanView, "description": "A repeated Idempotency-Key's job, or the plan"}},
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/GenerateBody"}}},
        }
    },
)
async def generate(
    request: Request,
    response: Response,
    context: Ctx,
    root: Root,
    idempotency_key: Annotated[str | None, Header()] = None,
    dry_run: bool = False,
) -> JobView | PlanView:
    """Submit a search. With an `Idempotency-Key`, sending it again gives the same job.

    With `dry_run=true` nothing is submitted: the answer is 200 and the plan, by which the budget would be spent. What
    the request leaves open and finished searches have taught is filled in.
    """
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= _MAX_KEY:
        raise Invalid([FieldError(field="Idempotency-Key", message=f"must have 1 to {_MAX_KEY} characters")])
    asked = validate(GenerateRequest, await read_json(request, context.settings.max_body))
    offer = await context.offer()
    admitted, indices = admit(await with_start(asked, context), offer, max_nfe=context.settings.max_nfe)
    await check_log(admitted, offer, context.settings.max_log_mb)
    if dry_run:
        response.status_code, learnt = 200, await context.learnt(admitted)
        return await asyncio.to_thread(plan_view, with_learnt(admitted, learnt), offer, learnt)
    if leaves_open(admitted):
        admitted = with_learnt(admitted, await context.learnt(admitted))
    job = Job(
        id=uuid.uuid4().hex,
        request=admitted,
        class_indices=indices,
        created_at=time.time(),
        progress=Progress(nfe_budget=admitted.budget.nfe, forwards_budget=admitted.budget.forwards),
    )
    # Of what was asked, not of what was admitted: a default that changes in between makes no other body.
    digest = hashlib.sha256(asked.model_dump_json().encode()).hexdigest()
    job, created = await context.store.submit(job, idempotency_key=idempotency_key, body_digest=digest)
    view = job_view(await context.snapshot(job.id), root)
    response.status_code = 202 if created else 200
    response.headers["Location"] = view.links.self_
    return view


@router.get("/jobs", tags=["jobs"])
async def jobs(
    context: Ctx,
    root: Root,
    status: Status | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 50,
) -> JobsView:
    """Jobs, newest first; follow `links.next` for older ones."""
    snapshots, following = await context.store.page(status=status, cursor=cursor, limit=limit)

    def link(at: str | None) -> str:
        given = {"status": status and status.value, "cursor": at, "limit": limit}
        return f"{root}/jobs?{urlencode({name: value for name, value in given.items() if value is not None})}"

    links = PageLinks(self_=link(cursor), next=None if following is None else link(following))
    return JobsView(jobs=tuple(job_view(snapshot, root) for snapshot in snapshots), links=links)


@router.get("/jobs/{job_id}", tags=["jobs"])
async def job(
    job_id: str,
    request: Request,
    response: Response,
    context: Ctx,
    root: Root,
    prefer: Annotated[str | None, Header()] = None,
) -> JobView:
    """The job. With `Prefer: wait=N`, its answer comes once the job has ended or N seconds (at most 60) are over."""
    if wanted := _WAIT.search(prefer or ""):
        seconds = min(int(wanted[1]), MAX_WAIT)
        await context.wait(job_id, seconds, request)
        response.headers["Preference-Applied"] = f"wait={seconds}"
    return job_view(await context.snapshot(job_id), root)


async def _stream(
    job_id: str, context: Ctx, root: Root, last_event_id: Annotated[str | None, Header()] = None
) -> AsyncGenerator[ServerSentEvent]:
    """What the job's stream will say; refused here, as a stream that has begun can have no other status any more."""
    snapshot = await context.snapshot(job_id)
    if snapshot.job.status.terminal and _seen(last_event_id, snapshot.last_event):
        raise HTTPException(204)  # tells an EventSource not to come back
    events = sse.stream(context.store, job_id, last_event_id, root=root, stopping=context.stopping)
    context.watch(events)
    return events


@router.get(
    "/jobs/{job_id}/events",
    tags=["jobs"],
    response_class=EventSourceResponse,
    responses={204: {"description": "Nothing will follow"}},
)
async def events(
    stream: Annotated[AsyncGenerator[ServerSentEvent], Depends(_stream)], context: Ctx
) -> AsyncIterator[ServerSentEvent]:
    """The job's events `job`, `status` and `round`, until it has ended; resumes after `Last-Event-ID`."""
    async with aclosing(stream):  # also when the client leaves
        async for event in stream:
            yield event
    context.watchers.discard(stream)


def _seen(event_id: str | None, newest: str) -> bool:
    try:
        return event_id is not None and event_order(event_id) >= event_order(newest)
    except ValueError:
        return False


@router.get(
    "/jobs/{job_id}/images/{rank}",
    tags=["jobs"],
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "The client has it"}},
)
async def image(
    job_id: str, rank: str, context: Ctx, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The image of a rank, 0 being the best; while the job runs, of the best so far."""
    snapshot = await context.snapshot(job_id)
    candidates = ranked(snapshot)
    if not _RANK.fullmatch(rank) or int(rank) >= len(candidates):
        detail = f"the job has {len(candidates)} image(s), ranks count from 0"
        raise UnknownResource(detail, slug="unknown-image")
    png = await context.store.image(job_id, candidates[int(rank)])
    if png is None:
        raise ImageExpired("images are kept for a time only; the candidate's recipe makes it again")
    result = snapshot.job.result
    if result is not None and candidates == tuple(image.candidate.id for image in result.images):
        png = with_proof(png, int(rank), result, snapshot.job)
    return png_response(png, if_none_match, caching_of(snapshot))


def caching_of(snapshot: Snapshot) -> str:
    """How long what belongs to a job may be kept by who asks for it."""
    return "private, max-age=86400, immutable" if snapshot.job.status.terminal else "no-cache"


def png_response(png: bytes, if_none_match: str | None, caching: str) -> Response:
    """A picture, or 304 where the client has it."""
    tag = f'"{hashlib.sha256(png).hexdigest()[:32]}"'
    headers = {"ETag": tag, "Cache-Control": caching}
    known = [part.strip().removeprefix("W/") for part in (if_none_match or "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return Response(png, media_type="image/png", headers=headers)


@router.get(
    "/jobs/{job_id}/log",
    tags=["jobs"],
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}}},
)
async def rounds(job_id: str, context: Ctx) -> StreamingResponse:
    """The job's rounds so far, one JSON object a line: what `sitsearch verify` runs the search again by."""
    await context.snapshot(job_id)

    async def lines() -> AsyncIterator[str]:
        async for entry in context.store.rounds(job_id):
            yield entry.text + "\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.post("/jobs/{job_id}/cancel", tags=["jobs"])
async def cancel(job_id: str, context: Ctx, root: Root) -> JobView:
    """Cancel the job; one that has ended stays as it is."""
    await context.store.cancel(job_id)
    return job_view(await context.snapshot(job_id), root)


@router.post(
    "/jobs/{job_id}/extend",
    status_code=202,
    tags=["jobs"],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ExtendBody"}}},
        }
    },
)
async def extend(job_id: str, request: Request, context: Ctx, root: Root) -> JobView:
    """Raise the budget of a search that has succeeded to `nfe` in all; it goes on from its state.

    The same number again changes nothing.
    """
    asked = validate(ExtendRequest, await read_json(request, context.settings.max_body))
    snapshot = await context.snapshot(job_id)
    extension = extension_of(snapshot.job, asked.nfe, await context.offer(), max_nfe=context.settings.max_nfe)
    if extension is not None:
        await context.store.extend(snapshot.job, extension)
    return job_view(await context.snapshot(job_id), root)


@router.post("/jobs/{job_id}/resume", status_code=202, tags=["jobs"])
async def resume(job_id: str, context: Ctx, root: Root) -> JobView:
    """Let a search that failed or was canceled go on from where its log ends; one that waits or runs stays as it is."""
    job = (await context.snapshot(job_id)).job
    if job.status is Status.SUCCEEDED:
        raise Conflict("the job has succeeded; give it a larger budget by `extend`", slug="has-succeeded")
    await context.store.resume(job)
    return job_view(await context.snapshot(job_id), root)


@router.get("/models", tags=["offer"])
async def models(context: Ctx) -> dict[str, tuple[ModelOffer, ...]]:
    """The models that can be searched over."""
    return {"models": (await context.offer()).models}


@router.get("/verifiers", tags=["offer"])
async def verifiers(context: Ctx) -> dict[str, tuple[VerifierOffer, ...]]:
    """The verifiers that can select."""
    return {"verifiers": (await context.offer()).verifiers}


@router.get("/algorithms", tags=["offer"])
async def algorithms(context: Ctx) -> dict[str, tuple[AlgorithmOffer, ...]]:
    """The search algorithms, with the JSON schema and defaults of their options."""
    return {"algorithms": (await context.offer()).algorithms}


@router.get("/healthz", tags=["operation"])
async def healthz() -> dict[str, Any]:
    """The process lives."""
    return {"status": "ok"}


@router.get("/readyz", tags=["operation"])
async def readyz(context: Ctx) -> dict[str, Any]:
    """Jobs can be taken and run: Redis answers and has room, and workers have said what they offer."""
    await context.offer()
    await context.store.check_room()
    return {"status": "ready"}


@router.get("/metrics", tags=["operation"], response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: Ctx) -> Response:
    """Figures for Prometheus."""
    page = await render(context.metrics, context.store)
    return Response(page, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
