"""The round log, the truth of a search, and the images of the best candidates so far."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any, cast

from sitsearch.workers.jobs.errors import RoundOutOfOrder
from sitsearch.workers.jobs.job import Progress, Round, Usage
from sitsearch.workers.jobs.store.connection import Connection, reachable
from sitsearch.workers.jobs.store.records import Claim, to_json


class Rounds(Connection):
    """Round logs and images."""

    @reachable
    async def rounds(self, job_id: str) -> Sequence[Round]:
        """The round log."""
        texts = await cast(Awaitable[Any], self.redis.lrange(self.keys.rounds(job_id), 0, -1))
        return [Round.model_validate_json(text) for text in texts]

    @reachable
    async def append_round(
        self,
        claim: Claim,
        round: Round,
        *,
        progress: Progress,
        usage: Usage,
        images: Mapping[str, bytes],
        keep: Collection[str],
    ) -> None:
        """Log a round, with all that follows from it, in one step; also a heartbeat.

        Args:
            claim: the hold on the job.
            round: its index must be the length of the log.
            progress: the progress after the round.
            usage: the usage after the round.
            images: PNG bytes by candidate id; those that are not to be kept are not stored.
            keep: ids of the best candidates so far, best first, and of what may yet be; images of others are dropped.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds; nothing was written.
            RoundOutOfOrder: the log's length is another; nothing was written.
        """
        best = [*keep]
        point = progress.curve[-1].model_dump() if progress.curve else None
        event = progress.model_dump(exclude={"curve"}) | {"point": point}
        outcome, due = await self.scripts.append_round(
            claim.job.id,
            claim.fence,
            index=round.round,
            texts=[to_json(round), to_json(progress), to_json(usage), to_json(best), to_json(event)],
            keep=best,
            images=images,
            image_ttl=self.settings.image_ttl,
        )
        if outcome == b"order":
            raise RoundOutOfOrder(claim.job.id, round.round, due)
        claim.check(outcome)

    @reachable
    async def image(self, job_id: str, candidate_id: str) -> bytes | None:
        """One candidate's PNG bytes, or None when it is not kept (any more)."""
        return cast("bytes | None", await cast(Awaitable[Any], self.redis.hget(self.keys.images(job_id), candidate_id)))

    @reachable
    async def images(self, job_id: str, candidate_ids: Sequence[str]) -> Sequence[bytes | None]:
        """The PNG bytes of some candidates, in order; None for those that are not kept (any more)."""
        if not candidate_ids:
            return []
        return cast(
            "list[bytes | None]",
            await cast(Awaitable[Any], self.redis.hmget(self.keys.images(job_id), list(candidate_ids))),
        )
