"""Checkpoints in the formats they are published in, and those that are refused."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.checkpoint import FOLDER_FILES, read_checkpoint, read_shapes
from tests.models.tiny_sit import save_sharded, tiny_sit, train_checkpoint

NET = tiny_sit()
STATE: dict[str, Tensor] = NET.state_dict()


def equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def both(path: Path) -> dict[str, Tensor]:
    """The checkpoint, whose shapes are read to be the same."""
    state = read_checkpoint(path)
    assert read_shapes(path) == {name: tensor.shape for name, tensor in state.items()}
    return state


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("key", [None, "ema", "model", "state_dict"])
def test_a_state_dict_is_read_bare_and_under_the_usual_keys(tmp_path: Path, key: str | None, zipped: bool) -> None:
    path = tmp_path / "SiT-XL-2-256.pt"
    torch.save({key: STATE} if key else STATE, path, _use_new_zipfile_serialization=zipped)
    assert equal(both(path), STATE)


def test_a_training_checkpoint_gives_its_ema(tmp_path: Path) -> None:
    path = tmp_path / "0050000.pt"
    torch.save(train_checkpoint(tiny_sit(seed=1), NET), path)
    assert equal(both(path), STATE)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_the_names_that_wrappers_add_are_taken_off(tmp_path: Path, prefix: str) -> None:
    wrapped = {prefix + name: tensor for name, tensor in STATE.items()}
    torch.save(wrapped, tmp_path / "net.pt")
    save_file(wrapped, tmp_path / "net.safetensors")
    assert equal(both(tmp_path / "net.pt"), STATE) and equal(both(tmp_path / "net.safetensors"), STATE)


@pytest.mark.parametrize("name", FOLDER_FILES)
def test_a_hugging_face_folder_is_read_whole_and_sharded(tmp_path: Path, name: str) -> None:
    if name.endswith(".json"):
        index = save_sharded(STATE, tmp_path, stem=name.split(".")[0])
        assert equal(both(index), STATE)
    else:
        save_file(STATE, tmp_path / name)
        assert equal(both(tmp_path / name), STATE)
    assert equal(both(tmp_path), STATE)


def test_half_precision_is_kept(tmp_path: Path) -> None:
    save_file({name: tensor.bfloat16() for name, tensor in STATE.items()}, tmp_path / "model.safetensors")
    assert {tensor.dtype for tensor in read_checkpoint(tmp_path).values()} == {torch.bfloat16}


class Trap:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle"])
@pytest.mark.parametrize("place", ["state", "beside"])
def test_a_pickle_with_code_is_refused_and_nothing_is_run(tmp_path: Path, form: str, place: str) -> None:
    mark, path = tmp_path / "run", tmp_path / "evil.pt"
    trap = Trap(f"touch {mark}")
    content = {**STATE, "x": trap} if place == "state" else {"ema": STATE, "opt": trap}
    if form == "bare pickle":
        path.write_bytes(pickle.dumps(trap, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    for read in (read_checkpoint, read_shapes):
        with pytest.raises(BadWeights, match=r"evil.pt is refused: .*would run code \(it asks for \w+\.system\)"):
            read(path)
    assert not mark.exists()


def test_a_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pt")
    with pytest.raises(BadWeights, match=r"is refused: .*torch\.nn\.modules\.linear\.Linear"):
        read_checkpoint(tmp_path / "net.pt")


def test_files_that_are_missing_torn_or_hold_no_state_dict_are_refused(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "whole.pt")
    (tmp_path / "torn.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:5000])
    (tmp_path / "page.pt").write_text("<html>not found</html>")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "torn.safetensors").write_bytes(b"\x80\x04not safetensors")
    for name in ("absent.pt", "torn.pt", "page.pt", "empty.pt", "absent.safetensors", "torn.safetensors"):
        for read in (read_checkpoint, read_shapes):
            with pytest.raises(BadWeights, match=f"cannot read the weights .*{name}"):
                read(tmp_path / name)
    for number, content in enumerate(({}, [1.0], {"ema": {"step": 1}}, {"loss": 0.5})):
        torch.save(content, tmp_path / f"{number}.pt")
        with pytest.raises(BadWeights, match="holds no state dict"):
            read_checkpoint(tmp_path / f"{number}.pt")


def test_shards_that_are_missing_incomplete_or_outside_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=r"holds none of model\.safetensors"):
        read_checkpoint(tmp_path)
    index = save_sharded(STATE, tmp_path)
    told = json.loads(index.read_text())
    shard = told["weight_map"]["pos_embed"]

    index.write_text(json.dumps({"weight_map": {**told["weight_map"], "extra": shard}}))
    with pytest.raises(BadWeights, match="lacks 'extra'"):
        read_checkpoint(tmp_path)
    for outside in ("../other.safetensors", "/etc/passwd", ""):
        index.write_text(json.dumps({"weight_map": {"pos_embed": outside}}))
        with pytest.raises(BadWeights, match="not a file beside it"):
            read_checkpoint(tmp_path)
    for nonsense in ("[]", "{}", "no json", '{"weight_map": {"a": []}}'):
        index.write_text(nonsense)
        with pytest.raises(BadWeights, match="not an index of shards"):
            read_checkpoint(tmp_path)
    index.write_text(json.dumps(told))
    (tmp_path / shard).unlink()
    with pytest.raises(BadWeights, match=f"cannot read the weights .*{shard}"):
        read_checkpoint(tmp_path)
