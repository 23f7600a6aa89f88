"""A small client of the HTTP interface: it follows `links` and never builds addresses of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

TERMINAL = {"succeeded", "failed", "canceled"}


class Problem(Exception):
    """The service refused a request.

    Attributes:
        status: HTTP status.
        body: the RFC 9457 problem.
    """

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status, self.body = status, dict(body)
        lines = [str(body.get("detail") or body.get("title") or f"HTTP {status}")]
        for error in body.get("errors", ()):
            allowed = f" (allowed: {', '.join(map(str, error['allowed']))})" if error.get("allowed") else ""
            lines.append(f"  {error.get('field')}: {error.get('message')}{allowed}")
        super().__init__("\n".join(lines))


class Client:
    """Talks to one service.

    Args:
        url: its address, such as `http://127.0.0.1:8000`.
        timeout: seconds without an answer after which a call fails.

    Raises:
        Problem: from every method, when the service answers with an error.
        httpx.TransportError: from every method, when the service cannot be reached.
    """

    def __init__(self, url: str, *, timeout: float = 75.0) -> None:
        self._http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def submit(self, request: Mapping[str, Any], *, idempotency_key: str | None = None) -> dict[str, Any]:
        """`POST /generate`; returns the job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/generate", json=dict(request), headers=headers)

    def plan(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /generate?dry_run=true`: how the budget would be spent; nothing is submitted."""
        return self._json("POST", "/generate", params={"dry_run": "true"}, json=dict(request))

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        return self._json("GET", f"/jobs/{job_id}")

    def jobs(self) -> list[dict[str, Any]]:
        """The newest jobs."""
        return list(self._json("GET", "/jobs")["jobs"])

    def refresh(self, job: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """The job as it stands now, or, with `wait`, once it has ended or `wait` seconds (at most 60) have passed."""
        headers = {"Prefer": f"wait={int(wait)}"} if wait else {}
        return self._json("GET", job["links"]["self"], headers=headers)

    def wait(
        self, job: Mapping[str, Any], *, watch: Callable[[dict[str, Any]], None] | None = None, every: float = 0.25
    ) -> dict[str, Any]:
        """The job once it has ended; `watch` is shown it `every` so many seconds on the way."""
        while True:
            current = self.refresh(job, wait=0 if watch else 30)
            if watch:
                watch(current)
            if current["status"] in TERMINAL:
                return current
            if watch:
                time.sleep(every)

    def images(self, job: Mapping[str, Any]) -> list[bytes]:
        """The job's PNG files, best first."""
        return [self._call("GET", image["links"]["self"]).content for image in (job.get("result") or {})["images"]]

    def log(self, job: Mapping[str, Any]) -> list[str]:
        """The job's rounds, a JSON object each."""
        return self._call("GET", job["links"]["log"]).text.splitlines()

    def cancel(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Cancel a job; one that has ended stays as it is."""
        return self._json("POST", job["links"]["cancel"])

    def extend(self, job: Mapping[str, Any], nfe: int) -> dict[str, Any]:
        """Raise the budget of a job that has succeeded to `nfe` in all; it goes on."""
        return self._json("POST", job["links"]["extend"], json={"nfe": nfe})

    def resume(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Let a job that failed or was canceled go on from where it ended."""
        return self._json("POST", job["links"]["resume"])

    def offer(self, what: str) -> list[dict[str, Any]]:
        """What the service offers: `models`, `verifiers` or `algorithms`."""
        answer = self._json("GET", f"/{what}")
        return list(answer[what])

    def ready(self) -> bool:
        """The service can take and run jobs."""
        try:
            return self._http.get("/readyz").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._call(method, path, **options).json()
        return answer

    def _call(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self._http.request(method, path, **options)
        if response.is_error:
            try:
                body = response.json()
            except ValueError:
                body = {"title": response.reason_phrase}
            raise Problem(response.status_code, body)
        return response
