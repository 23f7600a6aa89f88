"""`make loadtest`: start the service, load it with the scenario, stop it, and write `loadtest/out/report.md`.

Exits with 0 when at least one job was done, nothing failed and the service stopped cleanly; with 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from loadtest.report import markdown, measure

HERE = Path(__file__).parent
SERVE = f"{shlex.quote(sys.executable)} -m sitsearch.service.cli serve"
DRAIN = 330
"""Seconds that running jobs get to finish in once no new ones start; above the scenario's `PATIENCE`."""
STOP = 60
"""Seconds that the service gets to stop in after SIGINT."""


class LoadTestError(Exception):
    """The load test could not be carried out, or the service did not start or stop as it must."""


def free_port() -> int:
    """A TCP port of the loopback address that nothing listened on a moment ago."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running_service(command: Sequence[str], log: Path, start: float) -> Iterator[str]:
    """Run the service on a free port with an empty data folder; yields its address once it is ready.

    Args:
        command: what starts it, less `--port` and `--data-dir`.
        log: where its output goes.
        start: seconds until it must be ready.

    Raises:
        LoadTestError: it ended early, was not ready in time, ignored SIGINT, or left with an error.
    """
    with tempfile.TemporaryDirectory(prefix="sitsearch-loadtest-") as data, log.open("wb") as output:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        # A session of its own: Ctrl-C in the terminal reaches this process only, which then stops the service.
        process = subprocess.Popen(
            [*command, "--port", str(port), "--data-dir", data],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_ready(process, url, start, log)
            yield url
            if process.poll() is not None:
                raise LoadTestError(f"the service ended with status {process.returncode} under load: see {log}")
        finally:
            if process.poll() is None:
                _stop(process, log)


def _wait_ready(process: subprocess.Popen[bytes], url: str, start: float, log: Path) -> None:
    deadline = time.monotonic() + start
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise LoadTestError(f"the service ended with status {process.returncode} while starting: see {log}")
        try:
            with urllib.request.urlopen(url + "/readyz", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise LoadTestError(f"the service was not ready after {start:.0f} s: see {log}")


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGINT)
    try:
        status = process.wait(timeout=STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise LoadTestError(f"the service did not stop within {STOP} s of SIGINT: see {log}") from None
    if status not in (0, 128 + signal.SIGINT):
        raise LoadTestError(f"the service left with status {status} after SIGINT: see {log}")


def load(url: str, events: Path, log: Path, *, users: int, seconds: int) -> None:
    """Run the scenario against `url`; its users start within a second and finish the job they are at when time is up.

    Raises:
        LoadTestError: Locust itself failed, or did not end in time.
    """
    command = [sys.executable, "-m", "locust", "--locustfile", str(HERE / "locustfile.py"), "--host", url]
    command += ["--headless", "--users", str(users), "--spawn-rate", str(users), "--run-time", f"{seconds}s"]
    # Failed requests are judged by the report, which sees failed jobs too.
    command += ["--stop-timeout", str(DRAIN), "--exit-code-on-error", "0", "--only-summary"]
    environment = os.environ | {"LOADTEST_EVENTS": str(events)}
    with log.open("wb") as output:
        try:
            status = subprocess.run(
                command, env=environment, stdout=output, stderr=subprocess.STDOUT, timeout=seconds + DRAIN + 30
            ).returncode
        except subprocess.TimeoutExpired:
            raise LoadTestError(f"Locust did not end in time: see {log}") from None
    if status:
        raise LoadTestError(f"Locust left with status {status}: see {log}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the load test; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.run", description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=8, help="clients at once, each with one job at a time")
    parser.add_argument("--seconds", type=int, default=30, help="how long they start new jobs")
    parser.add_argument("--start", type=float, default=180, help="seconds until the service must be ready")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder of the report and the logs")
    parser.add_argument("--serve", default=SERVE, help="command of the service, less --port and --data-dir")
    options = parser.parse_args(argv)

    options.out.mkdir(parents=True, exist_ok=True)
    events = options.out / "events.jsonl"
    events.write_text("")
    try:
        with running_service(shlex.split(options.serve), options.out / "service.log", options.start) as url:
            load(url, events, options.out / "locust.log", users=options.users, seconds=options.seconds)
        fault = None
    except LoadTestError as error:
        fault = error
    figures = measure(events)
    text = markdown(figures, users=options.users, seconds=options.seconds)
    if fault:
        text += f"\n**The run itself failed**: {fault}\n"
    (options.out / "report.md").write_text(text, encoding="utf-8")
    print(text)
    return int(fault is not None or not figures.passed)


if __name__ == "__main__":
    sys.exit(main())
