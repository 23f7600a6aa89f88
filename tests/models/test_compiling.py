"""Compiling, and what happens where it cannot be done."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

GENERATE = """
import logging, torch
from tests.workers.tiny import tiny_generator
logging.basicConfig(format="%(message)s")
generator = tiny_generator()
x, t = torch.zeros(2, *generator.shape), torch.full((2,), 0.5)
before = generator.evaluate(x, t, generator.unconditional(2))
generator.compile()
print(torch.equal(before, generator.evaluate(x, t, generator.unconditional(2))))
"""


def test_without_a_compiler_the_network_runs_eagerly_and_says_so(tmp_path: Path) -> None:
    environment = os.environ | {"CXX": str(tmp_path / "none"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", GENERATE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    assert done.stdout.strip() == "True"
    lines = [line for line in done.stderr.splitlines() if "runs eagerly" in line]
    assert len(lines) == 1 and len(done.stderr.splitlines()) == 1, done.stderr
