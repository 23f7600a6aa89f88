"""A whole comparison, small, on the bundled model; and what is left to do of one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sitsearch.workers.studies.comparison import cells
from sitsearch.workers.studies.comparison.__main__ import main
from sitsearch.workers.studies.comparison.cells import plan_cells
from sitsearch.workers.studies.comparison.contenders import contenders_of
from sitsearch.workers.studies.comparison.log import Log, read
from sitsearch.workers.studies.comparison.tasks import TASKS

CONTENDERS = ["random", 'few=fk_steering:{"particles": 2, "sampler": {"method": "glass", "inner": 1}}']
ARGUMENTS = ["--tasks", "prompts", "--conditions", "2", "--seeds", "1", "--budgets", "4", "8", "--batch", "4"]


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_what_is_missing_is_searched_and_comes_out_as_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The classifier selects here, as CLIP takes long to import.
    judges = (*TASKS["prompts"].judges, "classifier")
    small = replace(TASKS["prompts"], selector="classifier", judges=judges, sampler={"steps": 2, "guidance": 1.0})
    monkeypatch.setitem(TASKS, "prompts", small)
    monkeypatch.setattr(cells, "SCORED", 4)
    command = ["--out", str(tmp_path), *ARGUMENTS, "--threads", "1", "--contenders", *CONTENDERS]
    main(command)
    log, path = read(tmp_path / "runs.jsonl"), tmp_path / "runs.jsonl"
    assert len(log.records) == 8 and len(log.setups) == 1
    for record in log.records:
        assert record["nfe"] == record["forwards"] == record["budget"]
        assert record["judges"]["attributes"] in range(7) and record["judges"]["auditor"] < 0
        assert record["judges"]["classifier"] == pytest.approx(record["score"], abs=1e-4)  # of the winner's picture
        assert record["seconds"] > 0 and record["together"] == 2 and record["device"] == "cpu"
    by_key = {(r["contender"], r["budget"], r["condition"]): r["score"] for r in log.records}
    assert len(by_key) == 8
    for condition in TASKS["prompts"].thinned(2).conditions:
        assert by_key["random", 8, condition.id] >= by_key["random", 4, condition.id]
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 4 and "few" in shown[1] and "4 of 4" in shown[-1]
    assert "## Prompts that ask for six attributes" in (tmp_path / "study.md").read_text()

    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    main(command)
    again = read(path)
    assert len(again.records) == 8 and again.records[-1]["together"] == 1
    assert again.records[-1]["score"] == log.records[-1]["score"]
    main(command)
    assert len(path.read_text().splitlines()) == 10


def test_a_budget_below_an_algorithms_least_is_skipped_with_a_line() -> None:
    said: list[str] = []
    planned = plan_cells([TASKS["classes"]], contenders_of(["random"]), [5, 6], 2, Log(), said.append)
    assert [(cell.budget, len(cell.cases), cell.work) for cell in planned] == [(6, 124, 744)]
    assert len(said) == 1 and "5 NFE  skipped: budget.nfe is 5; this request needs at least 6" in said[0]


def test_more_seeds_are_searched_of_a_log_with_fewer() -> None:
    task, random = TASKS["classes"].thinned(3), contenders_of(["random"])
    (whole,) = plan_cells([task], random, [6], 2, Log())
    done = [
        {"task": "classes", "contender": "random", "budget": 6, "condition": asked.id, "seed": seed}
        | {"options": {}, "sampler": {"method": "euler", "steps": 6, "guidance": 1.0}}
        for asked, seed in whole.cases[:4]
    ]
    (rest,) = plan_cells([task], random, [6], 2, Log(done))
    assert rest.cases == whole.cases[4:]
    assert plan_cells([task], random, [6], 1, Log(done)) == []


def test_one_label_is_one_contender_for_a_whole_log() -> None:
    said = {"options": {"neighbors": 2}, "sampler": {"method": "euler", "steps": 6, "guidance": 1.0}}
    log = Log([{"task": "classes", "contender": "few", "budget": 6, "condition": "A", "seed": 0} | said])
    with pytest.raises(ValueError, match="the log has 'few' with"):
        plan_cells([TASKS["classes"]], contenders_of(['few=zero_order:{"neighbors": 3}']), [60], 1, log)


@pytest.mark.parametrize(
    ("contender", "said"),
    [
        ('zero_order:{"neighbours": 3}', "neighbours"),
        ('fk_steering:{"sampler": {"method": "euler"}}', "needs a stochastic one"),
        ('random:{"sampler": {"method": "eulerr"}}', "eulerr"),
        ("nothing", "nothing"),
    ],
)
def test_a_contender_that_cannot_run_is_refused_before_anything_runs(
    contender: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "out"), *ARGUMENTS, "--contenders", "random", contender])
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
