"""A job as a client sees it: the record with its place in the queue and its links."""

from __future__ import annotations

from typing import Any

from workers.jobs.schemas import Job


def job_links(job_id: str) -> dict[str, str]:
    """Where a job's parts are; clients follow these and build no addresses."""
    return {"self": f"/jobs/{job_id}", "events": f"/jobs/{job_id}/events", "cancel": f"/jobs/{job_id}/cancel"}


def job_view(job: Job, queue_position: int | None = None) -> dict[str, Any]:
    """The body of a job."""
    view = job.model_dump(mode="json")
    view["queue_position"] = queue_position
    view["links"] = job_links(job.id)
    if view["result"] is not None:
        for image in view["result"]["images"]:
            image["links"] = {"self": f"/jobs/{job.id}/images/{image['rank']}"}
    return view
