"""Every refusal of the gateway as an RFC 9457 problem; the one place where errors become HTTP.

Problem                  an error that knows its answer
|- MalformedJson         400  the body is not one JSON document
|- UnknownResource       404  no such job or image
|- BodyTooSlow           408
|- ImageExpired          410  the image was there and its time has run out
|- BodyTooLarge          413
|- NotJson               415  the body's media type is not JSON
|- Invalid               422  fields at fault, with what is allowed there
|- QueueIsFull           429
|- Unavailable           503  Redis is away
|- TooManyWatchers       503
'- NoWorkers             503  no worker has said lately what it offers

Errors of the store and of the framework are mapped in `problem_of`.
"""

from __future__ import annotations

import http
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.errors import (
    BadCursor,
    IdempotencyConflict,
    JobChanged,
    QueueFull,
    StoreError,
    StoreFull,
    StoreUnavailable,
    UnknownJob,
    UnreadableRecord,
)

log = logging.getLogger(__name__)

_URN = "urn:sitsearch:problem:"
MEDIA_TYPE = "application/problem+json"
RETRY_UNAVAILABLE, RETRY_FULL = 2, 5
_SHOWN = 500
_NO_BODY = (204, 304)


class FieldError(Schema):
    """One field at fault: its dotted path in the body (or a header's or parameter's name), and what it may be."""

    field: str
    message: str
    allowed: tuple[Any, ...] | None = None


class ProblemBody(Schema):
    """The body of every error, as `application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    errors: tuple[FieldError, ...] = ()


class Problem(Exception):
    """An error that knows its answer.

    Args:
        detail: a sentence for people about this very case.
        errors: the fields at fault.
        slug: last part of the problem's type, where it is not the class's own.
        retry_after: seconds after which the same call may work.
    """

    status, slug, title = 500, "internal", "Internal error"

    def __init__(
        self,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        slug: str | None = None,
        retry_after: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail, self.errors = detail, tuple(errors)
        self.slug = slug or self.slug
        retry = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.headers = dict(headers or {}) | retry


class MalformedJson(Problem):
    """The body is not one JSON document (RFC 8259, I-JSON: UTF-8, unique names)."""

    status, slug, title = 400, "malformed-json", "The body is not valid JSON"


class UnknownResource(Problem):
    """No such job or image."""

    status, slug, title = 404, "not-found", "Not found"


class ImageExpired(Problem):
    """The image was there and its time has run out."""

    status, slug, title = 410, "image-expired", "The image has expired"


class BodyTooSlow(Problem):
    """The body did not arrive in time."""

    status, slug, title = 408, "body-too-slow", "The body did not arrive in time"


class BodyTooLarge(Problem):
    """The body is over the limit; the rest of it is not read."""

    status, slug, title = 413, "body-too-large", "The body is too large"


class NotJson(Problem):
    """The body's media type is not JSON."""

    status, slug, title = 415, "unsupported-media-type", "The body must be JSON"


class Conflict(Problem):
    """The call does not suit the state that the resource is in."""

    status, slug, title = 409, "conflict", "The resource is in another state"


class Invalid(Problem):
    """Fields at fault."""

    status, slug, title = 422, "invalid-request", "The request is not valid"

    def __init__(self, errors: Sequence[FieldError], *, slug: str | None = None) -> None:
        detail = "; ".join(f"{error.field}: {error.message}" if error.field else error.message for error in errors)
        super().__init__(detail[:_SHOWN], errors=errors, slug=slug)


class QueueIsFull(Problem):
    """As many jobs wait as the settings allow."""

    status, slug, title = 429, "queue-full", "The queue is full"


class Unavailable(Problem):
    """Redis is away."""

    status, slug, title = 503, "store-unavailable", "The job store is away"


class NoRoom(Problem):
    """The memory or the disk of the store is full."""

    status, slug, title = 507, "store-full", "The job store is full"


class TooManyWatchers(Problem):
    """As many event streams and long polls are open as one gateway takes."""

    status, slug, title = 503, "too-many-watchers", "Too many are watching"

    def __init__(self, most: int) -> None:
        super().__init__(f"this gateway has {most} event streams and long polls open", retry_after=RETRY_FULL)


class NoWorkers(Problem):
    """No worker has said lately what it offers."""

    status, slug, title = 503, "no-workers", "No workers are up"

    def __init__(self) -> None:
        super().__init__("no worker has reported what it offers; try again shortly", retry_after=RETRY_UNAVAILABLE)


class _OfFramework(Problem):
    """What the framework raises by itself: an unknown path, a wrong method."""

    def __init__(self, error: HTTPException) -> None:
        self.status = error.status_code
        self.title = http.HTTPStatus(error.status_code).phrase
        slug = self.title.lower().replace(" ", "-")
        super().__init__(str(error.detail), slug=slug, headers=error.headers)


def problem_of(error: Exception) -> Problem:
    """The problem that tells of `error`; of an unforeseen one, which the server logs, it tells nothing."""
    match error:
        case Problem():
            return error
        case UnknownJob():
            return UnknownResource(str(error), slug="unknown-job")
        case IdempotencyConflict():
            return Invalid([FieldError(field="Idempotency-Key", message=str(error))], slug="idempotency-conflict")
        case JobChanged():
            return Conflict(str(error), slug="job-changed")
        case BadCursor():
            return Invalid([FieldError(field="cursor", message=str(error))])
        case QueueFull():
            return QueueIsFull(str(error), retry_after=error.seconds)
        case UnreadableRecord():
            log.warning("%s", error)
            detail = "the job's record cannot be read here: it was spoilt, or written by a later version"
            return Problem(detail, slug="unreadable-record")
        case StoreFull():
            log.error("%s", error)
            detail = (
                f"the job store is out of {error.what}: it takes nothing new until there is room again; jobs can be "
                "read and canceled, and ended jobs leave room when they expire"
            )
            return NoRoom(detail, slug=f"{error.what}-full", retry_after=RETRY_FULL)
        case StoreUnavailable():
            log.warning("%s", error)
            return Unavailable("the job store does not answer; try again shortly", retry_after=RETRY_UNAVAILABLE)
        case RequestValidationError():
            return Invalid(parameter_errors(error.errors()))
        case HTTPException():
            return _OfFramework(error)
        case ClientDisconnect():
            return MalformedJson("the connection ended before the body did")
    return Problem("the server failed in a way that it did not foresee")


def parameter_errors(errors: Iterable[Mapping[str, Any]]) -> list[FieldError]:
    """The framework's complaints about query, path and header parameters."""
    return [FieldError(field=".".join(map(str, error["loc"][1:])), message=error["msg"]) for error in errors]


def problem_response(problem: Problem) -> Response:
    """The answer; ASCII only, so that no character of a bad request can spoil it."""
    body = ProblemBody(
        type=_URN + problem.slug,
        title=problem.title,
        status=problem.status,
        detail=problem.detail,
        errors=problem.errors,
    )
    content = body.model_dump(exclude_none=True, exclude=None if body.errors else {"errors"})
    return _AsciiJson(content, status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


class _AsciiJson(JSONResponse):
    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def install(app: FastAPI) -> None:
    """Answer every exception of `app` with its problem; one of a status that is no error and has no body, with that."""

    async def answer(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code in _NO_BODY:
            return Response(status_code=error.status_code, headers=error.headers)
        return problem_response(problem_of(error))

    # Registered one by one: a handler of `Exception` alone answers, but has the server log a traceback too.
    expected = (Problem, StoreError, HTTPException, RequestValidationError, ClientDisconnect)
    for kind in (*expected, Exception):
        app.add_exception_handler(kind, answer)
