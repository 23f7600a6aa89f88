"""The scenario: each user submits a small search, follows it to its end, fetches the winning image, and starts over.

The load is closed: a user has one job at a time, so the number of users is the number of jobs in flight.

Every request and every job adds a line to the file named by the environment variable `LOADTEST_EVENTS`
(`loadtest.report` reads it). Times there are Unix seconds, durations are in seconds.
"""

from __future__ import annotations

import json
import os
import random
import string
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from locust import HttpUser, between, events, task

MODEL, VERIFIER, METHOD, STEPS = "glyphs", "classifier", "heun", 10
BUDGETS = range(80, 401, 20)
WAIT = 30
"""Seconds of one long poll."""
PATIENCE = 300
"""Seconds after which a job that has not ended counts as lost."""
TERMINAL = {"succeeded", "failed", "canceled"}
PNG = b"\x89PNG\r\n\x1a\n"

_log = open(os.environ.get("LOADTEST_EVENTS", os.devnull), "a", buffering=1, encoding="utf-8")  # noqa: SIM115
_seeds = count()


def _record(**event: Any) -> None:
    _log.write(json.dumps(event) + "\n")


def _on_request(*, request_type: str, name: str, response_time: float, exception: Exception | None, **_: Any) -> None:
    error = None if exception is None else f"{type(exception).__name__}: {exception}"
    _record(kind="request", name=f"{request_type} {name}", seconds=response_time / 1e3, error=error)


events.request.add_listener(_on_request)


class JobFault(Exception):
    """The service answered as it may, yet the job did not come out as it must."""


class Searcher(HttpUser):
    """One client of the service."""

    wait_time = between(0.05, 0.2)

    def on_start(self) -> None:
        """Give each user its own repeatable sequence of requests."""
        self.random = random.Random(next(_seeds))

    @task
    def search(self) -> None:
        """Submit, follow, fetch: one job, recorded as one event whatever becomes of it."""
        budget = self.random.choice(BUDGETS)
        event: dict[str, Any] = {"kind": "job", "budget": budget, "nfe": 0, "error": None, "start": time.time()}
        try:
            event["nfe"] = self._run(budget)
        except JobFault as fault:
            event["error"] = str(fault)
        except Exception as error:  # an answer of another form than promised; this user goes on, and the report tells
            event["error"] = f"{type(error).__name__}: {error}"
        _record(**event, end=time.time())

    def _run(self, budget: int) -> int:
        """One job from submission to its image; returns the NFE spent.

        Raises:
            JobFault: a call failed (recorded as a failed request too), or the job did not succeed within its budget.
        """
        body = {
            "model": MODEL,
            "condition": {"class": self.random.choice(string.ascii_letters)},
            "seed": self.random.randrange(2**31),
            "budget": {"nfe": budget},
            "verifier": VERIFIER,
            "sampler": {"method": METHOD, "steps": STEPS},
        }
        with self._expect(202, "POST", "/generate", name="/generate", json=body) as response:
            job = response.json()
        deadline = time.monotonic() + PATIENCE
        while job["status"] not in TERMINAL:
            if time.monotonic() > deadline:
                raise JobFault(f"job not finished after {PATIENCE} s")
            headers = {"Prefer": f"wait={WAIT}"}
            with self._expect(200, "GET", job["links"]["self"], name="/jobs/{id}", headers=headers) as response:
                job = response.json()

        spent = int(job["progress"]["nfe_spent"])
        if job["status"] != "succeeded":
            raise JobFault(f"job {job['status']}: {(job.get('error') or {}).get('code', 'no error given')}")
        if spent > budget:
            raise JobFault("budget exceeded")
        with self._expect(
            200, "GET", job["result"]["images"][0]["links"]["self"], name="/jobs/{id}/images/{rank}"
        ) as response:
            if not response.content.startswith(PNG):
                response.failure("not a PNG")
                raise JobFault("image is not a PNG")
        return spent

    @contextmanager
    def _expect(self, status: int, method: str, path: str, **options: Any) -> Iterator[Any]:
        """Make a call that must be answered with `status`; anything else fails the request and the job."""
        with self.client.request(method, path, catch_response=True, timeout=WAIT + 30, **options) as response:
            if response.status_code != status:
                what = f"status {response.status_code}" if response.status_code else "no answer"
                response.failure(f"{what}, expected {status}")
                raise JobFault(f"{options['name']}: {what}")
            yield response
