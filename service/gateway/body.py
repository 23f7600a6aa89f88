"""From the bytes of a request to a schema object, refusing what JSON parsers usually let pass."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from sitsearch.service.gateway.problems import BodyTooLarge, BodyTooSlow, FieldError, Invalid, MalformedJson, NotJson

#: Seconds that a body may take, and bytes of a too large one that are read and dropped.
_BODY_TIMEOUT, _DRAIN = 30.0, 4 * 1024 * 1024
_CLOSE = {"Connection": "close"}
_MAX_DEPTH = 32
_MIN_INT, _MAX_INT = -(2**63), 2**63 - 1
_MAX_DIGITS = 20
_JSON_TYPE = re.compile(r"application/([a-z0-9.-]+\+)?json")

M = TypeVar("M", bound=BaseModel)


async def read_json(request: Request, limit: int) -> Any:
    """The body's JSON value: finite numbers, integers of 64 bits, well-formed strings, unique names, sane depth.

    Args:
        request: its body is read at most `limit` bytes far.
        limit: largest body in bytes.

    Raises:
        NotJson, BodyTooLarge, BodyTooSlow, MalformedJson, Invalid.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise NotJson(f"send Content-Type: application/json, not {media_type[:80]!r}")
    return parse_json(await _read(request, limit))


async def _read(request: Request, limit: int) -> bytes:
    """The body. Of one that is too large `limit` bytes are held; some more are read and dropped, since a client that is
    still sending when the connection closes would see a reset and no answer.

    FastAPI's own `max_body_size` (0.165, Starlette 1.10) drops nothing, and where a Content-Length is over the limit it
    puts a plain text of its own in the place of any answer, even after the work is done: a client would be told 413 of
    a job that has been canceled.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(_BODY_TIMEOUT):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > limit + _DRAIN:
                    break
    except TimeoutError:
        raise BodyTooSlow(f"the body did not arrive within {_BODY_TIMEOUT:.0f} s", headers=_CLOSE) from None
    if size > limit:
        raise BodyTooLarge(f"the body may have {limit} bytes", headers=_CLOSE)
    return bytes(body)


def parse_json(body: bytes) -> Any:
    """The JSON value of `body`.

    Raises:
        MalformedJson: it is not JSON, or names occur twice in an object, or it is nested too deeply.
        Invalid: a number or string in it is of no use; the error names the field.
    """
    try:
        value = json.loads(body.decode(), parse_int=_integer, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        raise MalformedJson(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise MalformedJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise MalformedJson(f"nested more than {_MAX_DEPTH} deep") from None
    if faults := _faults(value):
        raise Invalid(faults)
    return value


def _integer(digits: str) -> int:
    """An int, but for numbers of so many digits that turning them into one would be work: these are refused below."""
    return int(digits) if len(digits) <= _MAX_DIGITS else _MAX_INT + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise MalformedJson(f"the name {twice[:80]!r} occurs twice in one object")
    return found


def _faults(value: Any) -> list[FieldError]:
    faults = []
    left: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while left:
        path, item = left.pop()
        if len(path) > _MAX_DEPTH:
            raise MalformedJson(f"nested more than {_MAX_DEPTH} deep")
        if isinstance(item, dict):
            left += [((*path, name), child) for name, child in item.items()]
            strings = list(item)
        elif isinstance(item, list):
            left += [((*path, index), child) for index, child in enumerate(item)]
            strings = []
        else:
            strings = [item] if isinstance(item, str) else []
        if any(not _well_formed(text) for text in strings):
            faults.append(FieldError(field=dotted(path), message="has an unpaired surrogate, which is no character"))
        elif isinstance(item, int) and not _MIN_INT <= item <= _MAX_INT:
            faults.append(FieldError(field=dotted(path), message="must be an integer of at most 64 bits"))
        elif isinstance(item, float) and not math.isfinite(item):
            faults.append(FieldError(field=dotted(path), message="must be a finite number"))
    return faults


def _well_formed(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def dotted(path: Sequence[str | int]) -> str:
    """A path in a body as people write it: `sampler.steps`."""
    return ".".join(str(part).encode("ascii", "backslashreplace").decode()[:100] for part in path)


def validate(schema: type[M], value: Any) -> M:
    """`value` as a `schema` object.

    Raises:
        Invalid: naming every field at fault once.
    """
    try:
        return schema.model_validate(value)
    except ValidationError as error:
        messages: dict[str, list[str]] = {}
        for fault in error.errors(include_url=False, include_context=False, include_input=False):
            field = dotted(_real_path(fault["loc"], value, missing=fault["type"] == "missing"))
            messages.setdefault(field, []).append(fault["msg"].removeprefix("Value error, "))
        raise Invalid(
            [FieldError(field=field, message="; or ".join(texts)) for field, texts in messages.items()]
        ) from None


def _real_path(loc: Sequence[str | int], value: Any, *, missing: bool) -> list[str | int]:
    """`loc` without the names of union members that the validator puts into it; places in a list stay."""
    path: list[str | int] = []
    for part in loc:
        listed = isinstance(value, list) and isinstance(part, int) and 0 <= part < len(value)
        if listed or (isinstance(value, dict) and part in value):
            value = value[part]
        elif not (missing and isinstance(value, dict)):
            break
        path.append(part)
    return path
