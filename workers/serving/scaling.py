"""How many sampler replicas there should be: as many as work off what is queued in the time that it may take."""

from __future__ import annotations

import math
from typing import Any

from ray.serve.config import AutoscalingContext

#: What a replica reports: seconds that what was ordered of it and is not done takes it alone.
QUEUED_SECONDS = "queued_seconds"


def replicas_for(queued_seconds: float, *, target: float) -> int:
    """Replicas that have `target` seconds of work each, or less; at least 1."""
    return max(1, math.ceil(queued_seconds / target))


class QueuedWork:
    """A Ray Serve autoscaling policy; Serve keeps its answer within the pool's bounds and delays.

    Args:
        target: seconds of queued work a replica.
    """

    def __init__(self, target: float) -> None:
        self.target = target

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas, and the state that the policy wants to see again: none."""
        reported = (ctx.aggregated_metrics or {}).get(QUEUED_SECONDS, {})
        return replicas_for(sum(reported.values()), target=self.target), {}
