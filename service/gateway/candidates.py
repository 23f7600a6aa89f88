"""Candidates by their ids: those that a job's pages show, and the noise of one that a search is to begin with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from sitsearch.service.gateway.lineage import Placed, placed
from sitsearch.service.gateway.problems import FieldError, Invalid, UnknownResource
from sitsearch.workers.jobs.errors import UnknownJob
from sitsearch.workers.jobs.request import GenerateRequest, StartFrom
from sitsearch.workers.jobs.shown import ShownRound

if TYPE_CHECKING:
    from sitsearch.service.gateway.routes import Context

#: Rounds of one read.
READ = 500


async def with_start(request: GenerateRequest, context: Context) -> GenerateRequest:
    """The request with the recipe of the candidate that it starts from.

    Raises:
        Invalid: there is no such candidate (any more).
    """
    start = request.start_from
    if start is None or start.recipe is not None or start.job is None or start.candidate is None:
        return request
    try:
        recipe = (await located(context, start.job, start.candidate))[0].candidate.recipe
    except (UnknownResource, UnknownJob) as error:
        fault = FieldError(field="start_from.candidate", message=str(error))
        raise Invalid([fault], slug="unknown-candidate") from None
    found = StartFrom(job=start.job, candidate=start.candidate, recipe=recipe)
    return request.model_copy(update={"start_from": found})


async def located(context: Context, job_id: str, candidate_id: str) -> tuple[Placed, dict[str, Placed]]:
    """A candidate, and all that are shown of its job until then.

    Raises:
        UnknownResource: it is not shown, or not any more.
    """
    snapshot = await context.snapshot(job_id)
    found: list[ShownRound] = []
    for first in range(0, snapshot.job.progress.round, READ):
        found += await context.store.shown(job_id, first, first + READ - 1)
    everyone = await asyncio.to_thread(placed, found)
    if candidate_id not in everyone:
        detail = f"nothing is shown of a candidate {candidate_id[:100]!r}: some of each round are, for a time"
        raise UnknownResource(detail, slug="unknown-candidate")
    return everyone[candidate_id], everyone
