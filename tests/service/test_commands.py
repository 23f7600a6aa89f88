"""The command line without a service."""

from __future__ import annotations

import sys

import pytest

from sitsearch.service.cli import main
from sitsearch.service.cli.supervisor import free_port


def test_an_absent_service_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["sitsearch", "models", "--url", f"http://127.0.0.1:{free_port('127.0.0.1')}"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    assert "cannot reach the service" in capsys.readouterr().err
