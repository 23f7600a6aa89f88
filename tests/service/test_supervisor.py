"""`sitsearch serve` before anything has started."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from sitsearch.service.cli.supervisor import StartError, supervise
from sitsearch.workers.jobs.embedded import EmbeddedValkey
from sitsearch.workers.settings import Settings


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = Settings(_env_file=None, port=taken.getsockname()[1], data_dir=tmp_path / "data")
        with pytest.raises(StartError, match=r"cannot listen on .* choose another --port"):
            supervise(config, say=print, stop=threading.Event())
    assert not (tmp_path / "data").exists()


def test_a_data_folder_in_use_is_refused(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path), pytest.raises(Exception, match="another service uses"):
        supervise(Settings(_env_file=None, port=0, data_dir=tmp_path), say=print, stop=threading.Event())
