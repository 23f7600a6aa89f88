"""What pages show of a job's rounds: candidates with their recipes, and small pictures of them."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, cast

from sitsearch.workers.jobs.shown import ShownRound, pack, unpack
from sitsearch.workers.jobs.store.connection import Connection, reachable


class Gallery(Connection):
    """Shown rounds and thumbnails; they live for `settings.image_ttl` after the last of them."""

    @reachable
    async def show(self, job_id: str, round: ShownRound, thumbnails: Mapping[str, bytes]) -> None:
        """Show a round; the same round again changes nothing.

        Args:
            job_id: the job.
            round: what is shown of it.
            thumbnails: WebP bytes by candidate id.
        """
        milliseconds = max(1, int(self.settings.image_ttl * 1000))
        rounds, pictures = self.keys.shown(job_id), self.keys.thumbnails(job_id)
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hset(rounds, str(round.round), pack(round))
            pipe.pexpire(rounds, milliseconds)
            if thumbnails:
                pipe.hset(pictures, mapping={name.encode(): picture for name, picture in thumbnails.items()})
                pipe.pexpire(pictures, milliseconds)
            await pipe.execute()

    @reachable
    async def shown(self, job_id: str, first: int, last: int) -> list[ShownRound]:
        """The rounds from `first` to `last` that are shown (still), in order.

        Raises:
            UnreadableRecord: one of them cannot be understood.
        """
        if last < first:
            return []
        fields = [str(number) for number in range(first, last + 1)]
        found: Any = await cast(Awaitable[Any], self.redis.hmget(self.keys.shown(job_id), fields))
        return [unpack(packed) for packed in found if packed is not None]

    @reachable
    async def thumbnails(self, job_id: str, candidate_ids: Sequence[str]) -> dict[str, bytes]:
        """WebP bytes of those candidates that have any (still), by id."""
        if not candidate_ids:
            return {}
        found: Any = await cast(Awaitable[Any], self.redis.hmget(self.keys.thumbnails(job_id), [*candidate_ids]))
        return {name: picture for name, picture in zip(candidate_ids, found, strict=True) if picture is not None}
