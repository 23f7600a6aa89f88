"""The log that several processes append to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sitsearch.workers.studies.comparison.log import SETUP, append, key_of, read


def record(seed: int, score: float = 0.0) -> dict[str, Any]:
    return {"task": "t", "contender": "c", "budget": 6, "condition": "A", "seed": seed, "score": score}


def test_lines_of_many_writers_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: append(path, record(seed) | {"text": "x" * 5000}), range(200)))
    assert sorted(line["seed"] for line in read(path).records) == list(range(200))


def test_a_log_holds_starts_and_the_first_record_of_each_search(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    assert read(path).records == []
    for line in ({SETUP: {"device": "cpu"}}, record(0, 1.0), record(0, 2.0), record(1, 3.0)):
        append(path, line)
    log = read(path)
    assert log.setups == [{"device": "cpu"}]
    assert [line["score"] for line in log.records] == [1.0, 3.0]
    assert key_of(log.records[1]) == ("t", "c", 6, "A", 1)


def test_a_torn_line_is_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "runs.jsonl"
    append(path, record(0))
    with path.open("a") as file:
        file.write('{"task": "t", "conte\n')
    append(path, record(1))
    assert [line["seed"] for line in read(path).records] == [0, 1]
    assert "line 2 of" in capsys.readouterr().err
