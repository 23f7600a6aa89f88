"""Reading a request's body: its size, its media type and its JSON, before any schema sees it."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from service.gateway.problems import FieldError, Invalid, Problem, printable
from workers.jobs.schemas import GenerateRequest

MAX_DEPTH = 32


async def read_body(request: Request, limit: int) -> bytes:
    """The body, at most `limit` bytes of it.

    Raises:
        Problem: 413 when it is larger, whether it says so or not.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise Problem(413, "body-too-large", f"the body is larger than {limit} bytes")
    return bytes(body)


def parse_json(body: bytes, content_type: str | None) -> Any:
    """The JSON value of a body.

    Raises:
        Problem: 415 for another media type than JSON, 400 for what is not JSON (RFC 8259: so not NaN, and no key twice).
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        shown = printable(media_type) or "none"
        raise Problem(415, "unsupported-media-type", f"Content-Type must be application/json, not {shown}")

    def reject(constant: str) -> Any:
        raise ValueError(f"{constant} is not a JSON number")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) != len(pairs):
            raise ValueError("a key stands twice in one object")
        return table

    try:
        value = json.loads(body.decode("utf-8"), parse_constant=reject, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise Problem(400, "malformed-json", f"the body is not JSON: {printable(str(error))}") from error
    _check_text(value)
    return value


def _check_text(value: Any, depth: int = 0) -> None:
    """Refuse what no schema has a place for and no store can keep: lone surrogates, NULs, bottomless nesting."""
    if depth > MAX_DEPTH:
        raise Problem(400, "malformed-json", f"the body is nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= char <= "\udfff" for char in value):
            raise Problem(400, "malformed-json", "a string of the body has a NUL or half a surrogate pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key, depth + 1)
            _check_text(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth + 1)


def _field(error: ErrorDetails) -> str:
    """A dotted path of names that a client knows, without pydantic's names of union members."""
    parts = [str(part) for part in error["loc"]]
    known = [p for p in parts if p not in ("str", "int", "float", "bool", "none") and "[" not in p and "(" not in p]
    return printable(".".join(known)) or "(body)"


def parse_request(value: Any) -> GenerateRequest:
    """A body as a request.

    Raises:
        Invalid: a field is unknown, missing, of the wrong type or out of range.
    """
    try:
        return GenerateRequest.model_validate(value)
    except ValidationError as error:
        errors: dict[str, FieldError] = {}
        for item in error.errors(include_url=False):
            field, message = _field(item), printable(item["msg"].removeprefix("Value error, "))
            if item["type"] == "extra_forbidden":
                message = "unknown field"
            allowed = _known_fields(item["loc"][:-1]) if item["type"] == "extra_forbidden" else None
            errors.setdefault(field, FieldError(field=field, message=message, allowed=allowed))
        raise Invalid("invalid-request", list(errors.values())) from error


def _known_fields(path: tuple[int | str, ...]) -> list[str] | None:
    """The fields of the object at `path` of a request."""
    schema: Any = GenerateRequest
    for part in path:
        field = schema.model_fields.get(part) if hasattr(schema, "model_fields") else None
        if field is None:
            return None
        choices = [field.annotation, *getattr(field.annotation, "__args__", ())]
        schema = next((choice for choice in choices if hasattr(choice, "model_fields")), None)
    if schema is None:
        return None
    return [field.alias or name for name, field in schema.model_fields.items()]
