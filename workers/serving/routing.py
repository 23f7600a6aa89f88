"""How Ray Serve finds the replica of a call: by its slot, if it has one."""

from __future__ import annotations

import random

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

from sitsearch.workers.serving.affinity import ranked


class SlotRouter(RequestRouter):  # type: ignore[misc]  # Ray exports it untyped
    """Sends a call to the replica of its slot, or where that cannot take it to the next one.

    The slot's key travels as the call's multiplexed model id. Calls without one go to any replica.
    """

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """See `RequestRouter.choose_replicas`: each rank is asked after the one before has declined."""
        key = ""
        if pending_request is not None:
            key = pending_request.metadata.multiplexed_model_id
            pending_request.routing_context.should_backoff = True  # when all have declined, wait before asking again
        if not key:
            return [random.sample(candidate_replicas, min(2, len(candidate_replicas)))]
        replicas = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        return [[replicas[name]] for name in ranked(key, list(replicas))]
