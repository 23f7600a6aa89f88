"""Small valid messages for the tests of store and gateway."""

from __future__ import annotations

import time
import uuid
from typing import Any

from sitsearch.workers.jobs.chunks import SIGNATURE, with_text
from sitsearch.workers.jobs.job import Candidate, CurvePoint, Job, Progress, Result, ResultImage, Round, Status, Usage
from sitsearch.workers.jobs.logged import LoggedRound, logged
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.jobs.store.records import Claim


def make_request(**fields: Any) -> GenerateRequest:
    """A request for class Q with a budget of ten candidates, but for `fields`."""
    body = {"condition": {"class": "Q"}, "budget": {"nfe": 400}, "verifier": "classifier", "seed": 2**63 - 1}
    return GenerateRequest.model_validate(body | fields)


def make_job(**fields: Any) -> Job:
    """A new job, but for `fields`."""
    defaults = {"id": uuid.uuid4().hex, "request": make_request(), "class_indices": (16,), "created_at": time.time()}
    return Job(**(defaults | fields))


def make_candidate(identifier: str, score: float = -1.0, round: int = 0, index: int = 0) -> Candidate:
    """An evaluated candidate of 40 NFE."""
    recipe = Recipe(seed=7, round=round, index=index)
    return Candidate(id=identifier, recipe=recipe, nfe=40, forwards=80, scores={"classifier": score})


def make_round(index: int) -> Round:
    """Round `index` with one candidate `<index>-0`."""
    return Round(round=index, candidates=(make_candidate(f"{index}-0", float(-index), index),))


def png_of(identifier: str) -> bytes:
    """A PNG file without pixels, in which a candidate's id stands."""
    return with_text(SIGNATURE + bytes.fromhex("0000000049454e44ae426082"), "candidate", identifier)


def make_progress(rounds: int) -> Progress:
    """The progress after so many rounds of `make_round`."""
    curve = tuple(CurvePoint(nfe=40 * i, forwards=80 * i, score=0.0) for i in range(1, rounds + 1))
    spent = {"nfe_spent": 40 * rounds, "forwards_spent": 80 * rounds, "round": rounds}
    return Progress(nfe_budget=400, best_score=0.0, curve=curve, **spent)


def make_result(*identifiers: str) -> Result:
    """A result whose images are these candidates."""
    images = tuple(ResultImage(rank=i, score=-1.0, candidate=make_candidate(c)) for i, c in enumerate(identifiers))
    return Result(images=images, candidates=max(1, len(images)), stopped_by="budget")


async def log_round(store: JobStore, claim: Claim, index: int, *, keep: tuple[str, ...] | None = None) -> None:
    """Append round `index`, whose candidate is the best one unless `keep` says otherwise."""
    best = f"{index}-0"
    await store.append_round(
        claim,
        logged(make_round(index)),
        progress=make_progress(index + 1),
        usage=Usage(nfe_search=40 * (index + 1), forwards_search=80 * (index + 1)),
        images={best: png_of(best)},
        keep=(best,) if keep is None else keep,
        candidates=make_round(index).candidates,
    )


async def logged_rounds(store: JobStore, job_id: str) -> list[LoggedRound]:
    """The round log."""
    return [round async for round in store.rounds(job_id)]


async def claimed(store: JobStore, consumer: str = "a", **fields: Any) -> Claim:
    """A job that was just submitted and claimed by `consumer`."""
    await store.submit(make_job(**fields))
    claim = await store.claim(consumer, block=0.1)
    assert claim is not None
    return claim


async def succeeded(store: JobStore, **fields: Any) -> Job:
    """A finished job of one round."""
    claim = await claimed(store, **fields)
    await log_round(store, claim, 0)
    await store.finish(claim, status=Status.SUCCEEDED, result=make_result("0-0"), usage=Usage(nfe_search=40))
    job = await store.get(claim.job.id)
    assert job is not None
    return job
