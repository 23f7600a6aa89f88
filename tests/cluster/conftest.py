"""The whole service, started once: embedded Valkey, local Ray, workers and gateway, as `sitsearch serve` runs them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sitsearch.service.cli.supervisor import free_port
from sitsearch.service.client import Client
from tests.models.tiny_sd3 import save_sd3

START, STOP = 300, 60
LEASE = 3


@dataclass(frozen=True)
class Service:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]
    data_dir: Path

    def descendants(self) -> set[int]:
        """Process ids below the service's own, by its session of environment variables."""
        mark = f"SITSEARCH_DATA_DIR={self.data_dir}".encode()
        found = set()
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.add(int(entry.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found


def start_service(data_dir: Path, **env: str) -> Service:
    """`sitsearch serve` on a free port, once it says that it is ready."""
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "sitsearch.service.cli", "serve", "--port", str(port), "--data-dir", str(data_dir)],
        env=os.environ | {"SITSEARCH_LEASE": str(LEASE), "SITSEARCH_OFFER_TTL": "10"} | env,
        start_new_session=True,
    )
    service = Service(f"http://127.0.0.1:{port}", process, data_dir)
    deadline = time.monotonic() + START
    with Client(service.url, timeout=2) as client:
        while not client.ready():
            assert process.poll() is None, "the service ended while starting"
            assert time.monotonic() < deadline, "the service did not become ready"
            time.sleep(0.2)
    return service


def stop_service(service: Service) -> int:
    """Ctrl-C, and the exit code."""
    service.process.send_signal(signal.SIGINT)
    return service.process.wait(STOP)


TEXT_MODEL = """
name = "tiny-sd3"
title = "A tiny Stable Diffusion 3 with random weights"
license = "Apache-2.0"
sampler = { method = "euler", steps = 3, guidance = 4.0 }

[network]
kind = "text_to_image"
weights = "tiny-sd3"
resolution = 16
"""


@pytest.fixture(scope="session")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the card of a text-to-image model."""
    folder = tmp_path_factory.mktemp("cards")
    save_sd3(folder / "tiny-sd3")
    (folder / "tiny-sd3.toml").write_text(TEXT_MODEL)
    return folder


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory, cards: Path) -> Iterator[Service]:
    running = start_service(
        tmp_path_factory.mktemp("service"),
        SITSEARCH_CARDS_DIR=str(cards),
        RAY_ADDRESS="127.0.0.1:1",  # of a Ray that is none of the service's business
        SITSEARCH_MODELS='["glyphs", "tiny-sd3"]',
        SITSEARCH_SAMPLER_REPLICAS="1",  # two models and five verifiers take long enough to start
        SITSEARCH_VERIFIERS='["classifier", "auditor", "fid", "contrast", "similarity"]',
    )
    yield running
    assert stop_service(running) == 0
    assert running.descendants() == set(), "processes were left behind"


@pytest.fixture
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as connected:
        yield connected
