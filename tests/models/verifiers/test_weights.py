"""Weights of verifiers: state dicts, files under their checksum, folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sitsearch.models.checksums import sha256_of
from sitsearch.models.errors import BadWeights, ChecksumMismatch
from sitsearch.models.verifiers.weights import read_state, require_folder

STATE = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


class Evil:
    """What runs a command when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("gotcha",)


def test_safetensors_and_state_dicts_are_read_as_they_are(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    for weights in (STATE, tmp_path / "w.safetensors", str(tmp_path / "w.safetensors")):
        assert set(read_state(weights)) == {"a", "b"}


@pytest.mark.parametrize("content", [STATE, {"epoch": 3, "state_dict": {f"module.{k}": v for k, v in STATE.items()}}])
def test_a_file_of_torch_is_read_only_under_its_checksum(tmp_path: Path, content: dict[str, object]) -> None:
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(BadWeights, match=f"only if its SHA-256 is known.*{sha256_of(path)}"):
        read_state(path)
    with pytest.raises(ChecksumMismatch):
        read_state(path, sha256="0" * 64)
    torch.testing.assert_close(read_state(path, sha256=sha256_of(path).upper()), STATE)


@pytest.mark.parametrize("pinned", [None, "0" * 64])
def test_a_missing_file_is_refused(tmp_path: Path, pinned: str | None) -> None:
    with pytest.raises(BadWeights, match="cannot read the weights"):
        read_state(tmp_path / "none.safetensors", sha256=pinned)


def test_a_file_with_code_in_it_is_refused_and_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(BadWeights, match="would run code"):
        read_state(path, sha256=sha256_of(path))
    assert capsys.readouterr().out == ""


def test_a_folder_must_be_one_and_hold_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"has no \*\.safetensors"):
        require_folder(tmp_path, "*.safetensors")
    with pytest.raises(BadWeights, match="is not a folder"):
        require_folder(tmp_path / "none")
    with pytest.raises(BadWeights, match="loads a folder"):
        require_folder(STATE)
