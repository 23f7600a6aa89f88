"""Reading what was stored: fields of a later version are passed over, where over HTTP they are refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)


def read(model: type[M], text: bytes | str) -> M:
    """A message from its JSON, without the fields that this version does not know.

    Args:
        model: whose message it is.
        text: the JSON.

    Raises:
        pydantic.ValidationError: it lacks a field, or one is not what it should be.
    """
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        strange = [one["loc"] for one in error.errors(include_url=False) if one["type"] == "extra_forbidden"]
        if not strange:
            raise
        value = json.loads(text)
        for path in strange:
            _drop(value, path)
        return model.model_validate_json(json.dumps(value))


def _drop(value: Any, path: Sequence[int | str]) -> None:
    """Delete what lies at the path; parts that name a kind of message, and no field, are passed over."""
    for part in path[:-1]:
        if part in value if isinstance(value, dict) else isinstance(part, int):
            value = value[part]
    if isinstance(value, dict):
        value.pop(path[-1], None)
