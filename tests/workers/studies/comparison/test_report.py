"""Figures and text of the report from a small log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sitsearch.workers.studies.comparison.__main__ import main
from sitsearch.workers.studies.comparison.analysis import analyse
from sitsearch.workers.studies.comparison.log import SETUP, Log, append
from sitsearch.workers.studies.comparison.report import page


def searches(contender: str, budget: int, seconds: float, *scores: float, **changes: Any) -> list[dict[str, Any]]:
    """One search of each condition A, B, ... whose auditor says half of the score."""
    return [
        {
            "task": "classes",
            "contender": contender,
            "algorithm": contender,
            "budget": budget,
            "condition": "ABCDEF"[place],
            "seed": 0,
            "nfe": budget,
            "forwards": budget,
            "score": score,
            "judges": {"auditor": score / 2},
            "seconds": seconds,
            "device": "cpu",
            "dtype": "float32",
            "options": {},
            "sampler": {"method": "euler", "steps": 6},
        }
        | changes
        for place, score in enumerate(scores)
    ]


def small_log() -> Log:
    records = searches("random", 100, 1.0, 0.0, 0.0) + searches("random", 400, 4.0, 1.0, 3.0)
    records += searches("paths", 100, 2.0, 1.0, 2.0) + searches("paths", 400, 9.0, 2.0, 4.0)
    return Log(records)


def test_differences_are_at_equal_nfe_and_at_equal_time() -> None:
    (task,) = analyse(small_log())
    cell = task.cells["paths", 100]
    assert cell.means == {"score": 1.5, "auditor": 0.75}
    found = cell.differences["score"]
    assert (found.mean, found.low, found.high, cell.differences["auditor"].mean) == (1.5, 1, 2, 0.75)
    # In 2 s random is half-way to 400 NFE, at 200, with 0.5 and 1.5.
    assert cell.random_nfe == pytest.approx(200)
    assert cell.equal_time["score"].mean == pytest.approx(0.5)
    assert cell.equal_time["score"].low == pytest.approx(0.5) and cell.equal_time["auditor"].mean == pytest.approx(0.25)
    assert task.cells["paths", 400].equal_time == {} and task.cells["paths", 400].random_nfe is None


def test_the_target_is_randoms_largest_budget_up_to_1920() -> None:
    (task,) = analyse(small_log())
    assert (task.target_nfe, task.targets) == (400, {"score": 2.0, "auditor": 1.0})
    assert task.reached["random"]["score"] == pytest.approx(400)
    assert task.reached["paths"]["score"] == pytest.approx(100 * 4 ** (1 / 3))
    more = Log([*small_log().records, *searches("random", 1920, 9.0, 9, 9), *searches("random", 3840, 19.0, 99, 99)])
    (task,) = analyse(more)
    assert (task.target_nfe, task.reached["paths"]["score"]) == (1920, None)


def test_times_of_two_devices_do_not_compare() -> None:
    other = searches("zero_order", 100, 0.5, 1.0, 1.0, device="cuda")
    (task,), (alone,) = analyse(Log([*small_log().records, *other])), analyse(small_log())
    assert task.devices == ("cpu float32", "cuda float32")
    cell = task.cells["zero_order", 100]
    assert (cell.seconds, cell.equal_time, cell.differences["score"].mean) == (None, {}, 1.0)
    assert {key: task.cells[key] for key in alone.cells} == alone.cells, "the others compare as before"
    assert any("of searches on cpu float32; others ran on cuda float32" in line for line in page([task], Log()))


def test_without_random_there_are_means_and_no_differences() -> None:
    log = Log(searches("paths", 100, 2.0, 1.0, 2.0))
    text = "\n".join(page(analyse(log), log))
    assert "| paths | 1.5000 |" in text and "`random` was not run" in text
    assert "difference to random at equal NFE" not in text


def test_the_page_has_every_figure(tmp_path: Path) -> None:
    setup = {"command": "python -m comparison --seeds 1", "device_name": "a chip", "dtype": "float32"}
    append(tmp_path / "runs.jsonl", {SETUP: setup | {"versions": {"torch": "9.9"}}})
    for record in small_log().records:
        append(tmp_path / "runs.jsonl", record)
    main(["--out", str(tmp_path), "--report-only"])
    text = (tmp_path / "study.md").read_text()
    for line in (
        "`python -m comparison --seeds 1` on a chip, float32, torch 9.9.",
        "Task `classes`; `classifier` selects; 2 searches a cell.",
        "| contender | 100 NFE | 400 NFE |",
        "| paths | 1.5000 | 3.0000 |",
        "| paths | +1.5000 [+1.0000, +2.0000] + | +1.0000 [+1.0000, +1.0000] + |",
        "| paths | +0.7500 [+0.5000, +1.0000] + | +0.5000 [+0.5000, +0.5000] + |",
        "### NFE to reach what random has at 400 NFE",
        "| contender | score, 2.0000 | auditor, 1.0000 |",
        "| paths | 159 | 159 |",
        "| paths | 2 | 9 |",
        "| paths | +1.5000 +, +0.5000 + | +1.0000 +, - |",
        "| classes | paths | paths | - | method euler, steps 6 |",
    ):
        assert line in text.splitlines(), line
    table = json.loads((tmp_path / "study.json").read_text())
    assert table["setups"][0]["versions"] == {"torch": "9.9"}
    paths = table["tasks"]["classes"]["contenders"]["paths"]
    assert paths["budgets"]["100"]["differences"]["score"]["low"] == 1.0
    assert paths["nfe_to_reach_target"]["score"] == pytest.approx(158.74, abs=0.01)
    assert (tmp_path / "study.png").read_bytes().startswith(b"\x89PNG")


def test_an_empty_log_makes_no_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path), "--report-only"])
    assert "has no records" in capsys.readouterr().err
