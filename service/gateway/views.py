"""What clients see of a job. They follow `links` and never build addresses."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.fingerprint import Origin
from sitsearch.workers.jobs.job import Choice, JobError, LogDigest, Progress, ResultImage, Status, StopReason, Usage
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.jobs.store.records import Snapshot


class View(Schema):
    """Base of the views: `self` is an alias, as Python has its own use for the word."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)


class SelfLink(View):
    """Where a thing is."""

    self_: str = Field(alias="self")


class JobLinks(SelfLink):
    """What can be done with a job; `images` are of the best candidates so far, best first."""

    events: str
    rounds: str
    cancel: str
    extend: str
    resume: str
    log: str
    images: tuple[str, ...]


class ImageView(ResultImage):
    """One of the best images."""

    links: SelfLink


class ResultView(View):
    """The answer of a finished search."""

    images: tuple[ImageView, ...]
    candidates: int
    invalid: int
    stopped_by: StopReason
    warnings: tuple[str, ...]
    choice: Choice | None
    hacking: tuple[str, ...] | None
    origins: tuple[Origin, ...]
    log: LogDigest | None


class JobView(View):
    """A job. Times are Unix seconds; `queue_position` 0 is next; `note` says what a running job waits for.

    Of a search that goes on, `result` is the last one until the next is there.
    """

    id: str
    status: Status
    created_at: float
    started_at: float | None
    finished_at: float | None
    queue_position: int | None
    request: GenerateRequest
    progress: Progress
    result: ResultView | None
    usage: Usage
    error: JobError | None
    note: str | None
    links: JobLinks


class PageLinks(SelfLink):
    """This page, and the next one unless this is the last."""

    next: str | None


class JobsView(View):
    """A page of jobs, newest first."""

    jobs: tuple[JobView, ...]
    links: PageLinks


def ranked(snapshot: Snapshot) -> tuple[str, ...]:
    """Ids of the candidates whose images can be fetched, best first: the result's, or the best so far."""
    result, request = snapshot.job.result, snapshot.job.request
    if result is None or (
        snapshot.job.status is Status.RUNNING and snapshot.best
    ):  # images are held of more than were asked for
        return snapshot.best[: request.num_images] if not request.condition.is_many else snapshot.best
    return tuple(image.candidate.id for image in result.images)


def job_view(snapshot: Snapshot, root: str) -> JobView:
    """The view of a job under the address prefix `root`."""
    job = snapshot.job
    self_ = f"{root}/jobs/{job.id}"

    def image_link(rank: int) -> str:
        return f"{self_}/images/{rank}"

    result = None
    if job.result is not None:
        images = tuple(
            ImageView(**dict(image), links=SelfLink(self_=image_link(image.rank))) for image in job.result.images
        )
        result = ResultView(
            images=images,
            candidates=job.result.candidates,
            invalid=job.result.invalid,
            stopped_by=job.result.stopped_by,
            warnings=job.result.warnings,
            choice=job.result.choice,
            hacking=job.result.hacking,
            origins=job.result.origins,
            log=job.result.log,
        )
    return JobView(
        id=job.id,
        status=job.status,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        queue_position=snapshot.queue_position,
        request=job.request,
        progress=job.progress,
        result=result,
        usage=job.usage,
        error=job.error,
        note=job.note,
        links=JobLinks(
            self_=self_,
            events=f"{self_}/events",
            rounds=f"{self_}/rounds",
            cancel=f"{self_}/cancel",
            extend=f"{self_}/extend",
            resume=f"{self_}/resume",
            log=f"{self_}/log",
            images=tuple(image_link(rank) for rank in range(len(ranked(snapshot)))),
        ),
    )
