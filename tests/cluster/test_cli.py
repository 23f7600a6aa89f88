"""The command line against the running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.cluster.conftest import Service

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]  # the first test starts the service


def sitsearch(service: Service, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sitsearch.service.cli", *words, "--url", service.url]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_generate_saves_the_images_and_the_record(service: Service, tmp_path: Path) -> None:
    words = ("--class", "Q", "--nfe", "50", "--steps", "4", "--num-images", "2")
    words += ("--search", "random", "--option", "round_size=3")
    done = sitsearch(service, "generate", *words, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("*.json")
    job = json.loads(record.read_text())
    assert job["status"] == "succeeded" and job["progress"]["nfe_spent"] == 48
    assert [Image.open(tmp_path / f"{job['id']}-{rank}.png").size for rank in (0, 1)] == [(32, 32)] * 2
    assert "6 candidates, 48 NFE, 96 forwards" in done.stdout
    verified = sitsearch(service, "verify", str(tmp_path / f"{job['id']}-0.png"), "--spot", "3")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert "every pixel is the same" in verified.stdout and "3 candidates made and scored again" in verified.stdout
    assert job["id"] in sitsearch(service, "status").stdout
    assert json.loads(sitsearch(service, "status", job["id"]).stdout)["id"] == job["id"]
    assert "succeeded" in sitsearch(service, "cancel", job["id"]).stdout


@pytest.mark.parametrize(
    ("command", "name"), [("models", "glyphs"), ("verifiers", "classifier"), ("algorithms", "random")]
)
def test_what_is_offered_is_listed(service: Service, command: str, name: str) -> None:
    assert name in sitsearch(service, command).stdout


def test_a_refusal_names_the_field_and_what_is_allowed(service: Service) -> None:
    done = sitsearch(service, "generate", "--class", "Q", "--verifier", "nobody")
    assert done.returncode == 1 and "verifier.name" in done.stderr and "classifier" in done.stderr
