"""What finished jobs teach, added up for each model and verifier; see `sitsearch.workers.search.lessons`."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, cast

from sitsearch.workers.jobs.store.connection import Connection, reachable


class Lessons(Connection):
    """Sums by name, to which every job adds."""

    @reachable
    async def teach(self, job_id: str, model: str, verifier: str, added: Mapping[str, float]) -> bool:
        """Add what a job that has succeeded teaches, and say whether it was added.

        A job teaches once, however often it is said and however often it goes on. When `keys.LESSONS_KEPT` jobs have
        taught, every sum is halved, so that what is old fades.

        Args:
            job_id: of the job; one whose record has expired, or that was queued again, teaches nothing.
            model, verifier: what its lesson is about.
            added: by the names of sums, which it has from then on.
        """
        outcome = await self.scripts.teach(job_id, self.keys.lessons(model, verifier), added)
        return outcome == b"ok"

    @reachable
    async def lessons(self, model: str, verifier: str) -> dict[str, float]:
        """The sums for a model and a verifier, and under `jobs` how many jobs they are of; empty where none taught."""
        fields = await cast(Awaitable[Any], self.redis.hgetall(self.keys.lessons(model, verifier)))
        return {name.decode(): float(value) for name, value in fields.items()}
