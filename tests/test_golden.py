"""Ours agrees with the reference wherever the reference runs, and the check notices when it does not."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.golden.__main__ import main
from tests.golden.check import BOUNDS, DATA, Family, check


@pytest.fixture(scope="module")
def families() -> dict[str, Family]:
    return {family.name: family for family in check(DATA)}


@pytest.mark.parametrize("name", BOUNDS)
def test_every_stored_array_is_within_its_bound(families: dict[str, Family], name: str) -> None:
    assert families[name].failures == []


def test_nothing_stored_is_left_unchecked(families: dict[str, Family]) -> None:
    stored = [key for file in ("interpolants", "samplers") for key in np.load(DATA / f"{file}.npz").files]
    inputs = ("t", "x", "field", "x0", "z")
    outputs = {key for key in stored if key.split("/")[-1] not in inputs and not key.startswith("sde_noise/")}
    checked = {error.key for name in ("interpolants", "ode", "dopri5", "sde") for error in families[name].errors}
    assert checked == outputs


def test_the_command_exits_non_zero_when_an_array_differs(tmp_path: Path) -> None:
    arrays = dict(np.load(DATA / "interpolants.npz"))
    arrays["GVP/sigma"] = arrays["GVP/sigma"] + 1e-9
    np.savez(tmp_path / "interpolants.npz", **arrays)
    result = subprocess.run(
        [sys.executable, "-m", "tests.golden", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "GVP/sigma" in result.stdout


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_array_that_is_not_finite_fails(tmp_path: Path, value: float) -> None:
    arrays = dict(np.load(DATA / "interpolants.npz"))
    arrays["VP/alpha"] = np.full_like(arrays["VP/alpha"], value)
    np.savez(tmp_path / "interpolants.npz", **arrays)
    assert not check(tmp_path)[0].ok


def test_a_folder_without_arrays_or_without_weights_is_refused(tmp_path: Path) -> None:
    assert main([str(tmp_path)]) == 2
    shutil.copy(DATA / "sit_latent.npz", tmp_path)
    assert main([str(tmp_path)]) == 2
