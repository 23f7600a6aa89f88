"""What a result's PNG file says of itself, so that anyone can make it again and hold it against its job's log."""

from __future__ import annotations

from pydantic import ValidationError

from sitsearch.workers.jobs import chunks
from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.fingerprint import Origin
from sitsearch.workers.jobs.job import Candidate, Extension, Job, LogDigest, Result, StopReason
from sitsearch.workers.jobs.lenient import read
from sitsearch.workers.jobs.request import GenerateRequest

#: Of the PNG's text chunk.
KEYWORD = "sitsearch:proof"


class Proof(Schema):
    """Of one image of a result.

    Attributes:
        job: the job's id.
        rank: of the image.
        candidate: that it shows: its recipe, and the scores that it was selected by.
        request: all that was asked for.
        class_indices: what the request's classes are to the model, as in `Job`.
        extensions: of the search.
        stopped_by: what ended it.
        origins: what made its rounds.
        log: the tree hash of its rounds.
    """

    job: str
    rank: int
    candidate: Candidate
    request: GenerateRequest
    class_indices: tuple[int, ...] = ()
    extensions: tuple[Extension, ...] = ()
    stopped_by: StopReason
    origins: tuple[Origin, ...] = ()
    log: LogDigest | None = None


def with_proof(png: bytes, rank: int, result: Result, job: Job) -> bytes:
    """A PNG file of the result's image `rank` with its `Proof`; the rest of it is as it was."""
    proof = Proof(
        job=job.id,
        rank=rank,
        candidate=result.images[rank].candidate,
        request=job.request,
        class_indices=job.class_indices,
        extensions=job.extensions,
        stopped_by=result.stopped_by,
        origins=result.origins,
        log=result.log,
    )
    return chunks.with_text(png, KEYWORD, proof.model_dump_json(ensure_ascii=True))


def proof_in(png: bytes) -> Proof:
    """The proof that a PNG file carries.

    Raises:
        ValueError: it is not a PNG file, or has no proof, or one that cannot be read.
    """
    text = chunks.texts(png).get(KEYWORD)
    if text is None:
        raise ValueError("the file carries no proof: it is not an image of a finished search, or was saved anew")
    try:
        return read(Proof, text)
    except (ValidationError, ValueError) as error:
        raise ValueError(f"the file's proof cannot be read: {error}") from error
