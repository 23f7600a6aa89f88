"""The embedded Valkey as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis

from sitsearch.workers.jobs import embedded
from sitsearch.workers.jobs.embedded import EmbeddedValkey, EmbeddedValkeyError


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.05)
    raise AssertionError(f"process {pid} still runs")


def test_data_outlives_the_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        client.set("key", "value")
        pid = valkey.pid
    wait_until_gone(pid)
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        assert client.get("key") == b"value"


def test_data_outlives_a_killed_server(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        client.set("key", "value")
        os.kill(valkey.pid, signal.SIGKILL)
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        assert client.get("key") == b"value"


def test_the_server_dies_with_a_killed_parent_and_frees_its_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sitsearch.workers.jobs.embedded", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        url, _, pid = parent.stdout.readline().split()
        with Redis.from_url(url) as client:
            client.set("key", "value")
        parent.kill()
    wait_until_gone(int(pid))
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        assert client.get("key") == b"value"


def test_one_folder_takes_one_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_LOCK_TIMEOUT", 0.2)
    with EmbeddedValkey(tmp_path), pytest.raises(EmbeddedValkeyError, match="another service uses"):
        EmbeddedValkey(tmp_path).__enter__()


def test_it_listens_on_no_port_and_lets_only_its_user_in(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as valkey, Redis.from_url(valkey.url) as client:
        assert client.config_get("port")["port"] == "0"
        folder = Path(valkey.url.removeprefix("unix://")).parent
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()


def test_a_server_that_is_not_running_has_no_address(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedValkeyError):
        EmbeddedValkey(tmp_path).url  # noqa: B018
