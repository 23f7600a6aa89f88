"""The round log, the truth of a search, and the images of the best candidates so far."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Collection, Mapping, Sequence
from typing import Any, cast

from sitsearch.workers.jobs.errors import RoundOutOfOrder
from sitsearch.workers.jobs.job import Candidate, Progress, Usage
from sitsearch.workers.jobs.logged import LoggedRound, pack, unpack
from sitsearch.workers.jobs.shown import chosen, scores_of
from sitsearch.workers.jobs.store.connection import Connection, reachable
from sitsearch.workers.jobs.store.records import Claim, to_json

#: Rounds of one read: others get their turn between two of them.
_READ = 200


class Rounds(Connection):
    """Round logs and images."""

    async def rounds(self, job_id: str) -> AsyncIterator[LoggedRound]:
        """The round log, read in parts.

        Raises:
            UnreadableRecord: a round cannot be understood.
        """
        start = 0
        while texts := await self._packed(job_id, start, start + _READ - 1):
            for text in texts:
                yield unpack(text)
            start += len(texts)

    @reachable
    async def _packed(self, job_id: str, first: int, last: int) -> list[bytes]:
        return cast("list[bytes]", await cast(Awaitable[Any], self.redis.lrange(self.keys.rounds(job_id), first, last)))

    @reachable
    async def append_round(
        self,
        claim: Claim,
        round: LoggedRound,
        *,
        progress: Progress,
        usage: Usage,
        images: Mapping[str, bytes],
        keep: Collection[str],
        candidates: Sequence[Candidate] = (),
    ) -> None:
        """Log a round, with all that follows from it, in one step; also a heartbeat.

        Args:
            claim: the hold on the job.
            round: its index must be the length of the log.
            progress: the progress after the round.
            usage: the usage after the round.
            images: PNG bytes by candidate id; those that are not to be kept are not stored.
            keep: ids of the best candidates so far, best first, and of what may yet be; images of others are dropped.
            candidates: of the round; its event has the scores of some.

        Raises:
            LeaseLost, JobCanceled: the claim no longer holds; nothing was written.
            RoundOutOfOrder: the log's length is another; nothing was written.
        """
        best = [*keep]
        point = progress.curve[-1] if progress.curve else None
        scalars = progress.model_copy(update={"curve": ()})
        event = scalars.model_dump(exclude={"curve"}) | {"point": point and point.model_dump()}
        event["candidates"] = scores_of(chosen(candidates, self.settings.thumbnails))
        outcome, due = await self.scripts.append_round(
            claim.job.id,
            claim.token,
            lease=self.settings.lease,
            index=round.round,
            texts=[pack(round), to_json(scalars), to_json(usage), to_json(best), to_json(event)],
            point=b"" if point is None else to_json(point),
            points=len(progress.curve),
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
