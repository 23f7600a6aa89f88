"""The load test against a gateway that is known to be right, or wrong in one known way, over real HTTP."""

import json
import shlex
import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from loadtest import run

FAKE = f"{shlex.quote(sys.executable)} -m tests.loadtest.fake_gateway"


def loadtest(out: Path, fault: str = "none", users: int = 2, seconds: int = 2) -> tuple[int, str]:
    options = ["--users", str(users), "--seconds", str(seconds), "--start", "30", "--out", str(out)]
    status = run.main([*options, "--serve", f"{FAKE} --fault {fault}"])
    return status, (out / "report.md").read_text()


def test_a_service_that_keeps_its_word_passes(tmp_path: Path) -> None:
    status, report = loadtest(tmp_path)
    assert status == 0, report
    assert "**Passed**" in report and "| none | 0 |" in report
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    jobs = [event for event in events if event["kind"] == "job"]
    assert len(jobs) >= 2
    assert all(80 <= job["budget"] <= 400 and 0 < job["nfe"] <= job["budget"] for job in jobs)
    # Each job is one submission, at least one look at it, and one image.
    names = [event["name"] for event in events if event["kind"] == "request"]
    assert names.count("POST /generate") == names.count("GET /jobs/{id}/images/{rank}") == len(jobs)
    assert names.count("GET /jobs/{id}") >= len(jobs)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("submit", "status 503, expected 202"),
        ("fail", "job: job failed: worker_lost"),
        ("overspend", "job: budget exceeded"),
        ("image", "not a PNG"),
        ("form", "job: KeyError: 'self'"),
    ],
)
def test_a_service_that_breaks_its_word_fails_and_the_report_names_it(tmp_path: Path, fault: str, error: str) -> None:
    status, report = loadtest(tmp_path, fault, users=1, seconds=1)
    assert status == 1
    assert "**Failed**" in report and error in report


def test_a_service_that_does_not_start_is_reported_with_its_status(tmp_path: Path) -> None:
    status = run.main(["--out", str(tmp_path), "--serve", f"{shlex.quote(sys.executable)} -c 'raise SystemExit(3)'"])
    assert status == 1
    assert "ended with status 3 while starting" in (tmp_path / "report.md").read_text()


def test_a_service_that_is_never_ready_is_stopped(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    with (
        pytest.raises(run.LoadTestError),
        run.running_service(command, tmp_path / "log", start=1),
    ):
        pytest.fail("it was never ready")


def test_a_service_that_ignores_the_interrupt_is_killed_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STOP", 1)
    deaf = f"import signal, time; signal.signal({int(signal.SIGINT)}, signal.SIG_IGN); time.sleep(60)"
    with (
        pytest.raises(run.LoadTestError, match="did not stop within 1 s"),
        run.running_service([sys.executable, "-c", deaf], tmp_path / "log", start=1),
    ):
        pytest.fail("it was never ready")


def test_the_service_gets_a_free_port_and_is_gone_afterwards(tmp_path: Path) -> None:
    with run.running_service(shlex.split(FAKE), tmp_path / "log", start=30) as url:
        assert urllib.request.urlopen(url + "/readyz").status == 200
    with pytest.raises(OSError):
        urllib.request.urlopen(url + "/readyz", timeout=1)
