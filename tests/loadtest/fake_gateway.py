"""A small gateway for testing the load test itself: the HTTP contract of a search, with jobs that only wait.

`--fault` names the one thing it does wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import uvicorn
from fastapi import FastAPI, Header, HTTPException, Request, Response

from sitsearch.workers.jobs.request import GenerateRequest

FAULTS = ("none", "submit", "fail", "overspend", "image", "form")
JOB_SECONDS = 0.2
NFE_PER_CANDIDATE = 20


def build(fault: str) -> FastAPI:
    """The gateway; every job ends `JOB_SECONDS` after its submission."""
    app = FastAPI()
    jobs: dict[str, tuple[GenerateRequest, float]] = {}

    def view(identifier: str) -> dict[str, Any]:
        request, end = jobs[identifier]
        ended = time.monotonic() >= end
        nfe = request.budget.nfe or 0
        spent = nfe // NFE_PER_CANDIDATE * NFE_PER_CANDIDATE + (fault == "overspend") * NFE_PER_CANDIDATE
        image = {"rank": 0, "links": {"self": f"/jobs/{identifier}/images/0"}}
        return {
            "id": identifier,
            "status": "running" if not ended else "failed" if fault == "fail" else "succeeded",
            "progress": {"nfe_spent": spent if ended else 0, "nfe_budget": nfe},
            "error": {"code": "worker_lost", "detail": "all samplers are gone"} if ended and fault == "fail" else None,
            "result": {"images": [image]} if ended and fault != "fail" else None,
            "links": {} if fault == "form" else {"self": f"/jobs/{identifier}"},
        }

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/generate", status_code=202)
    async def generate(request: Request) -> dict[str, Any]:
        body = GenerateRequest.model_validate_json(await request.body())
        if fault == "submit":
            raise HTTPException(503)
        identifier = str(len(jobs))
        jobs[identifier] = (body, time.monotonic() + JOB_SECONDS)
        return view(identifier)

    @app.get("/jobs/{identifier}")
    async def job(identifier: str, prefer: str = Header()) -> dict[str, Any]:
        name, _, seconds = prefer.partition("=")
        assert name == "wait"
        await asyncio.sleep(max(0.0, min(jobs[identifier][1] - time.monotonic(), float(seconds))))
        return view(identifier)

    @app.get("/jobs/{identifier}/images/{rank}")
    def image(identifier: str, rank: int) -> Response:
        return Response(b"<html>" if fault == "image" else b"\x89PNG\r\n\x1a\n...", media_type="image/png")

    return app


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--fault", choices=FAULTS, default="none")
    options = parser.parse_args()
    uvicorn.run(build(options.fault), host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
