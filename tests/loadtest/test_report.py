import json
from pathlib import Path
from typing import Any

import pytest

from loadtest.report import markdown, measure, quantile


def request(name: str = "POST /generate", seconds: float = 0.01, error: str | None = None) -> dict[str, Any]:
    return {"kind": "request", "name": name, "seconds": seconds, "error": error}


def job(start: float, end: float, nfe: int = 100, error: str | None = None) -> dict[str, Any]:
    return {"kind": "job", "budget": 100, "nfe": nfe, "start": start, "end": end, "error": error}


def written(path: Path, *events: dict[str, Any]) -> Path:
    file = path / "events.jsonl"
    file.write_text("".join(json.dumps(event) + "\n" for event in events))
    return file


def test_a_quantile_is_a_value_that_was_measured() -> None:
    values = [3.0, 1.0, 2.0, 4.0]
    assert [quantile(values, q) for q in (0.25, 0.5, 0.95, 1.0)] == [1.0, 2.0, 4.0, 4.0]
    assert quantile([7.0], 0.5) == 7.0


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_rates_are_over_the_time_from_the_first_submission_to_the_last_end(tmp_path: Path) -> None:
    figures = measure(written(tmp_path, request(), job(10, 12), request(), job(11, 14, nfe=60)))
    assert (figures.done, figures.nfe, figures.window) == (2, 160, 4)
    assert figures.finish == (2, 3)
    assert figures.passed
    assert "| jobs/s | 0.50 |" in markdown(figures, users=2, seconds=4)
    assert "| NFE/s | 40 |" in markdown(figures, users=2, seconds=4)


def test_failed_requests_and_failed_jobs_are_counted_by_kind_and_kept_out_of_the_latencies(tmp_path: Path) -> None:
    events = (
        request(seconds=9, error="E: status 503"),
        request(seconds=9, error="E: status 503"),
        job(0, 9, error="canceled"),
    )
    figures = measure(written(tmp_path, *events, request(), job(0, 1)))
    assert figures.errors == {"POST /generate: E: status 503": 2, "job: canceled": 1}
    assert (figures.done, figures.failed, figures.failed_requests) == (1, 1, 2)
    assert (figures.submit, figures.finish) == ((0.01,), (1,))
    assert not figures.passed


def test_a_run_in_which_nothing_was_done_does_not_pass_but_is_reported(tmp_path: Path) -> None:
    figures = measure(written(tmp_path))
    assert not figures.passed
    assert "| submit | - | - | - | - |" in markdown(figures, users=1, seconds=1)


def test_an_error_cannot_break_the_table(tmp_path: Path) -> None:
    figures = measure(written(tmp_path, request(error="a | b\nc")))
    assert "| POST /generate: a \\| b c | 1 |" in markdown(figures, users=1, seconds=1)
