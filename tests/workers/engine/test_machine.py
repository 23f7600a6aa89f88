"""What a process takes of its machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sitsearch.workers.engine.machine import cores, network_dtype


@pytest.mark.parametrize(
    ("limit", "expected"),
    [("max 100000", 8), ("400000 100000", 4), ("150000 100000", 2), ("10000 100000", 1), ("6400000 100000", 8)],
)
def test_a_containers_limit_bounds_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(limit + "\n")
    assert cores(tmp_path / "cpu.max") == expected


def test_without_a_limit_all_cores_are_there(tmp_path: Path) -> None:
    assert 1 <= cores(tmp_path / "cpu.max") <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({"avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "bf16": True}, torch.bfloat16),
    ],
)
def test_a_cpu_samples_in_the_precision_that_it_computes_in(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert network_dtype("auto", "cpu") == dtype
    assert network_dtype("bfloat16", "cpu") == torch.bfloat16, "what is named is taken"
    assert network_dtype("float32", "cuda:1") == torch.float32
