"""What the schemas share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_STEPS = 1_000
MAX_SEED = 2**63 - 1
#: The least and the most that a job may weigh where the device is shared out.
PRIORITIES = (0.1, 10.0)


class Schema(BaseModel):
    """Base of every message: frozen, and refuses unknown fields, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _no_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("must be a number, not a boolean")
    return value


Count = Annotated[int, BeforeValidator(_no_bool), Field(strict=True)]
Real = Annotated[float, BeforeValidator(_no_bool)]
