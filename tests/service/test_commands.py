"""The command line without a service."""

from __future__ import annotations

import sys

import pytest
import typer

from sitsearch.service.cli import main
from sitsearch.service.cli.options import request_of
from sitsearch.service.cli.supervisor import free_port


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
