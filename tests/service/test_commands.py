"""The command line without a service."""

from __future__ import annotations

import sys

import pytest
import typer

from sitsearch.service.cli import main
from sitsearch.service.cli.options import request_of
from sitsearch.service.cli.searching import way_to
from sitsearch.service.cli.supervisor import free_port
from sitsearch.workers.jobs.job import TargetProgress
from sitsearch.workers.jobs.request import GenerateRequest


def test_an_absent_service_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sitsearch", "models", "--url", f"http://127.0.0.1:{free_port('127.0.0.1')}"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "cannot reach the service" in capsys.readouterr().err


def test_classes_and_prompts_describe_one_condition_or_many() -> None:
    assert request_of(class_="Q", prompt=["a Q"])["condition"] == {"class": "Q", "prompt": "a Q"}
    assert request_of(classes="A,B")["condition"] == {"classes": ["A", "B"]}
    assert request_of(class_="Q", num_images=4, diversity=0.5)["diversity"] == 0.5
    asked = request_of(prompt=["a fox, red", "a hen"], allocation="adaptive")
    assert (asked["condition"], asked["allocation"]) == ({"prompts": ["a fox, red", "a hen"]}, "adaptive")
    many = [{"class": "A", "prompt": "x"}, {"class": "B", "prompt": "y"}]
    assert request_of(classes="A,B", prompt=["x", "y"])["condition"] == {"many": many}
    with pytest.raises(typer.BadParameter, match="1 --prompt for 2 --classes"):
        request_of(classes="A,B", prompt=["x"])


def test_a_target_and_a_score_are_stop_rules() -> None:
    assert request_of(class_="Q")["stop"] == {}
    asked = request_of(class_="Q", target=0.9, confidence=0.5, stop_score=1.0, patience=100)
    assert asked["stop"] == {"score": 1.0, "target": {"score": 0.9, "confidence": 0.5}, "patience_nfe": 100}
    target = GenerateRequest.model_validate(request_of(class_="Q", target=0.9)).stop.target
    assert target is not None and target.confidence == 0.95
    with pytest.raises(typer.BadParameter, match="--confidence goes with --target"):
        request_of(class_="Q", confidence=0.5)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"seen": 7}, ", target 0.9: -"),
        ({"seen": 90}, ", target 0.9: out of sight"),
        ({"reached": True, "nfe_expected": 0, "nfe_confident": 0}, ", target 0.9 reached"),
        (
            {"probability": 0.01, "nfe_expected": 1000, "nfe_confident": 2990},
            ", target 0.9: expected after 1,000 NFE, with 0.95 after 2,990 NFE",
        ),
        (
            {"probability": 0.005, "nfe_expected": 2000, "nfe_confident": 6001},
            ", target 0.9: expected after 2,000 NFE, with 0.95 after more than the budget",
        ),
        (
            {"probability": 1e-9},
            ", target 0.9: expected after more than the budget, with 0.95 after more than the budget",
        ),
    ],
)
def test_the_way_to_a_target_is_shown(changes: dict[str, float], shown: str) -> None:
    fields = {"score": 0.9, "confidence": 0.95, "reached": False, "sample": "random", "seen": 100, "nfe_left": 6000}
    assert way_to(TargetProgress.model_validate(fields | changes).model_dump()) == shown
    assert way_to(None) == ""
