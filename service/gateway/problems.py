"""Errors as RFC 9457 problems.

Problem (Exception)
|- Invalid            422, with the fields at fault
|- UnknownJob         404
|- NoImage            404
'- every other case   a plain Problem
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from workers.jobs.errors import IdempotencyConflict, QueueFull, StoreUnavailable

log = logging.getLogger(__name__)

URN = "urn:sitsearch:problem:"
MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"


class FieldError(BaseModel):
    """One field at fault, as a dotted path, with the values that are allowed where they can be listed."""

    field: str
    message: str
    allowed: list[str] | None = None


class Problem(Exception):
    """A refusal with its status, its stable kind (the end of its `type` URN) and a sentence for people."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = list(errors), dict(headers or {})

    def response(self) -> Response:
        """The answer."""
        body: dict[str, Any] = {
            "type": URN + self.kind,
            "title": self.kind.replace("-", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            body["errors"] = [error.model_dump(exclude_none=True) for error in self.errors]
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


class Invalid(Problem):
    """The request is well-formed JSON that asks for something this deployment cannot do."""

    def __init__(self, kind: str, errors: Sequence[FieldError]) -> None:
        super().__init__(422, kind, "; ".join(f"{e.field}: {e.message}" for e in errors), errors=errors)


class UnknownJob(Problem):
    """There is no such job, or its record has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(404, "unknown-job", f"there is no job {job_id!r}, or it is no longer kept")


class NoImage(Problem):
    """The job has no image of that rank (yet, or any more)."""

    def __init__(self, job_id: str, rank: int) -> None:
        super().__init__(404, "no-image", f"job {job_id} has no image of rank {rank}, or none yet, or it has expired")


def printable(text: str, limit: int = 200) -> str:
    """Text of a client's that can be sent back: surrogates replaced, cut at `limit` characters."""
    return text.encode("utf-8", "replace").decode()[:limit]


def field_errors(error: RequestValidationError) -> list[FieldError]:
    """Pydantic's findings with dotted paths, without the `body` in front."""
    found = []
    for item in error.errors():
        path = [str(part) for part in item["loc"] if part not in ("body", "query", "path", "header")]
        found.append(FieldError(field=printable(".".join(path)) or "(body)", message=printable(item["msg"])))
    return found


def install(app: FastAPI) -> None:
    """Answer every error of `app` with a problem."""

    def on_problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return error.response()

    def on_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        errors = field_errors(error)
        return Invalid("invalid-request", errors).response()

    def on_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "http-error")
        return Problem(error.status_code, kind, str(error.detail), headers=error.headers).response()

    def on_store(_: Request, error: Exception) -> Response:
        log.warning("store unavailable: %s", error)
        detail = "the job store does not answer; try again"
        return Problem(503, "store-unavailable", detail, headers={"Retry-After": RETRY_AFTER}).response()

    def on_full(_: Request, error: Exception) -> Response:
        return Problem(429, "queue-full", str(error), headers={"Retry-After": RETRY_AFTER}).response()

    def on_conflict(_: Request, error: Exception) -> Response:
        return Problem(422, "idempotency-conflict", str(error)).response()

    app.add_exception_handler(Problem, on_problem)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(StoreUnavailable, on_store)
    app.add_exception_handler(QueueFull, on_full)
    app.add_exception_handler(IdempotencyConflict, on_conflict)
