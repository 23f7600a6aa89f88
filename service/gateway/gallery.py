"""The candidates of a job over HTTP: rounds with scores and small pictures, and one candidate with its family."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from sitsearch.service.gateway.candidates import located
from sitsearch.service.gateway.lineage import Placed, family
from sitsearch.service.gateway.problems import ImageExpired
from sitsearch.service.gateway.routes import Context, Ctx, Root, caching_of, png_response
from sitsearch.service.gateway.views import SelfLink, View
from sitsearch.workers.jobs.job import Candidate, Phase
from sitsearch.workers.jobs.shown import ShownRound

#: Rounds of one answer, and of one with pictures.
MOST_ROUNDS, MOST_PICTURED = 500, 50

router = APIRouter(tags=["candidates"])


class ShownCandidate(View):
    """A candidate without its recipe, which ends at `time`; before 1 it was scored on its data prediction.

    `thumbnail` is a small picture, as an address that holds it whole.
    """

    id: str
    phase: Phase
    time: float
    condition: int = 0
    nfe: int
    gradients: int = 0
    scores: dict[str, float]
    invalid: bool = False
    thumbnail: str | None = None


class RoundView(View):
    """A round with those of its `count` candidates that are shown; `audits` are of the best so far."""

    round: int
    count: int
    candidates: tuple[ShownCandidate, ...]
    audits: dict[str, float] | None


class RoundLinks(SelfLink):
    """This page, the next one unless this is the last for now, and where a candidate is, `{id}` being its id."""

    next: str | None
    candidate: str


class RoundsView(View):
    """Rounds in order, as far as they are shown; `rounds_in_all` are told."""

    rounds: tuple[RoundView, ...]
    rounds_in_all: int
    links: RoundLinks


class Relative(View):
    """A member of a candidate's family: `step` is what was done to its `parent`, which plain noise has not."""

    id: str
    round: int
    parent: str | None
    step: str
    scores: dict[str, float]
    thumbnail: str | None = None


class CandidateLinks(SelfLink):
    """`image` is there while the full picture is kept, which is only that of the best candidates."""

    job: str
    image: str | None


class CandidateView(View):
    """A candidate with its recipe, and where it came from: `family` holds it, its ancestors and their children."""

    candidate: Candidate
    round: int
    parent: str | None
    step: str
    thumbnail: str | None
    family: tuple[Relative, ...]
    links: CandidateLinks


class RoundsQuery(View):
    """Which rounds: from the first, so many, with pictures or without."""

    first: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    limit: Annotated[int, Field(ge=1, le=MOST_ROUNDS)] = MOST_PICTURED
    pictures: bool = False


@router.get("/jobs/{job_id}/rounds")
async def rounds(job_id: str, context: Ctx, root: Root, query: Annotated[RoundsQuery, Query()]) -> RoundsView:
    """What is shown of a job's rounds: some candidates of each, for as long as its images are kept."""
    snapshot = await context.snapshot(job_id)
    told = snapshot.job.progress.round
    limit = min(query.limit, MOST_PICTURED) if query.pictures else query.limit
    last = min(query.first + limit, told)
    found = await context.store.shown(job_id, query.first, last - 1)
    ids = [candidate.id for one in found for candidate in one.candidates]
    pictures = await _pictures(context, job_id, ids) if query.pictures else {}
    address = f"{root}/jobs/{job_id}/rounds"
    asked = f"limit={query.limit}&pictures={str(query.pictures).lower()}"
    return RoundsView(
        rounds=tuple(_round_view(one, pictures) for one in found),
        rounds_in_all=told,
        links=RoundLinks(
            self_=f"{address}?first={query.first}&{asked}",
            next=f"{address}?first={last}&{asked}" if last < told else None,
            candidate=f"{root}/jobs/{job_id}/candidates/{{id}}",
        ),
    )


@router.get("/jobs/{job_id}/candidates/{candidate_id}")
async def candidate(job_id: str, candidate_id: str, context: Ctx, root: Root) -> CandidateView:
    """A candidate with its recipe, its scores and its family, for as long as the job's images are kept."""
    one, everyone = await located(context, job_id, candidate_id)
    relatives = await asyncio.to_thread(family, everyone, candidate_id)
    pictures = await _pictures(context, job_id, [relative.candidate.id for relative in relatives])
    kept = await context.store.image(job_id, candidate_id) is not None
    self_ = f"{root}/jobs/{job_id}/candidates/{candidate_id}"
    return CandidateView(
        candidate=one.candidate,
        round=one.round,
        parent=one.parent,
        step=one.step,
        thumbnail=pictures.get(candidate_id),
        family=tuple(_relative(relative, pictures) for relative in relatives),
        links=CandidateLinks(self_=self_, job=f"{root}/jobs/{job_id}", image=f"{self_}/image" if kept else None),
    )


@router.get(
    "/jobs/{job_id}/candidates/{candidate_id}/image",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}}, 304: {"description": "The client has it"}},
)
async def image(
    job_id: str, candidate_id: str, context: Ctx, if_none_match: Annotated[str | None, Header()] = None
) -> Response:
    """The full picture of one of the best candidates."""
    snapshot = await context.snapshot(job_id)
    png = await context.store.image(job_id, candidate_id)
    if png is None:
        raise ImageExpired("only the best candidates' images are kept, and for a time; the recipe makes it again")
    return png_response(png, if_none_match, caching_of(snapshot))


async def _pictures(context: Context, job_id: str, ids: Sequence[str]) -> dict[str, str]:
    """Thumbnails by candidate id, as addresses that hold them whole (RFC 2397): one answer has many of them."""
    found = await context.store.thumbnails(job_id, ids)
    return {name: f"data:image/webp;base64,{base64.b64encode(webp).decode()}" for name, webp in found.items()}


def _round_view(one: ShownRound, pictures: dict[str, str]) -> RoundView:
    candidates = tuple(
        ShownCandidate(
            id=shown.id,
            phase=shown.phase,
            time=shown.recipe.time,
            condition=shown.condition,
            nfe=shown.nfe,
            gradients=shown.gradients,
            scores=shown.scores,
            invalid=shown.invalid,
            thumbnail=pictures.get(shown.id),
        )
        for shown in one.candidates
    )
    return RoundView(round=one.round, count=one.count, candidates=candidates, audits=one.audits)


def _relative(one: Placed, pictures: dict[str, str]) -> Relative:
    candidate = one.candidate
    return Relative(
        id=candidate.id,
        round=one.round,
        parent=one.parent,
        step=one.step,
        scores=candidate.scores,
        thumbnail=pictures.get(candidate.id),
    )
