"""Checkpoints to tensors, without running what is in them.

Read are, as a file or in a folder,

- safetensors, whole, or sharded with the `*.safetensors.index.json` that Hugging Face libraries write beside shards;
- files of `torch.save`, with the unpickler that makes only tensors and plain containers (`weights_only=True`).

A file that is not a bare state dict is searched for one: SiT's `train.py` writes
`{"model": ..., "ema": ..., "opt": ..., "args": ...}`, and its samples are made with `ema`.
"""

from __future__ import annotations

import argparse
import json
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.finite import check_finite

#: Where a training checkpoint keeps its state dicts; the first that is there is taken.
STATE_KEYS = ("ema", "model", "state_dict")

#: Put before the names by torch's wrappers of a network: `DistributedDataParallel` and `torch.compile`.
WRAPPERS = ("module.", "_orig_mod.")

#: What a folder's weights are called, in the order in which they are looked for.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
)

INDEX_SUFFIX = ".safetensors.index.json"

V = TypeVar("V")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, in the precision they were saved in.

    Args:
        path: a `.safetensors` file, the `.safetensors.index.json` of its shards, a folder with one of `FOLDER_FILES`,
            or a file of `torch.save` (any other name).

    Raises:
        BadWeights: the file is missing or damaged, holds more than tensors, holds no state dict, or numbers in it are
            not finite (as training leaves them that went wrong).
    """
    state = _unpickle(path) if is_pickle(path) else _read_safetensors(path)
    check_finite(state.items(), path)
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file, names in _safetensors_files(path):
        try:
            found = load_file(file)
        except (OSError, SafetensorError) as error:
            raise BadWeights(f"cannot read the weights {file}: {error}") from error
        state |= _named(found, names, file)
    return _bare(state)


def read_shapes(path: Path) -> dict[str, torch.Size]:
    """Name to shape of a checkpoint's tensors; their values are not read from the disk.

    Args and errors are those of `read_checkpoint`.
    """
    if is_pickle(path):
        return {name: tensor.shape for name, tensor in _unpickle(path).items()}
    shapes: dict[str, torch.Size] = {}
    for file, names in _safetensors_files(path):
        try:
            with safe_open(file, framework="pt") as opened:
                found = {name: torch.Size(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise BadWeights(f"cannot read the weights {file}: {error}") from error
        shapes |= _named(found, names, file)
    return _bare(shapes)


def is_pickle(path: Path) -> bool:
    """Whether reading the path unpickles: it is neither a folder nor safetensors."""
    return not (path.is_dir() or path.name.endswith((".safetensors", INDEX_SUFFIX)))


def _safetensors_files(path: Path) -> Iterator[tuple[Path, set[str] | None]]:
    """The files to read, each with the names wanted of it (None: all)."""
    if path.is_dir():
        present = [path / name for name in FOLDER_FILES if (path / name).exists()]
        if not present:
            raise BadWeights(f"{path} holds none of {', '.join(FOLDER_FILES)}")
        path = present[0]
    if not path.name.endswith(INDEX_SUFFIX):
        yield path, None
        return
    try:
        weight_map = json.loads(path.read_text())["weight_map"]
        shards: dict[str, set[str]] = {}
        for name, shard in weight_map.items():
            shards.setdefault(shard, set()).add(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadWeights(f"{path} is not an index of shards: {error!r}") from error
    for shard, names in sorted(shards.items()):
        # An index comes from the net as the weights do: it must not lead out of its folder.
        if not shard or Path(shard).name != shard:
            raise BadWeights(f"{path} names the shard {shard!r}, which is not a file beside it")
        yield path.parent / shard, names


def _named(found: dict[str, V], names: set[str] | None, file: Path) -> dict[str, V]:
    """The tensors `names` among those of a file."""
    if names is None:
        return found
    if missing := sorted(names - found.keys()):
        raise BadWeights(f"{file} lacks {missing[0]!r}, which the index says it holds ({len(missing)} such)")
    return {name: found[name] for name in names}


def _unpickle(path: Path) -> dict[str, Tensor]:
    try:
        # `train.py` saves its command line along, which holds numbers and words only. Mapping the file leaves on the
        # disk what is not used (the optimiser's moments); files of before torch 1.6 are no zip and cannot be mapped.
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise BadWeights(_refusal(path, error)) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise BadWeights(f"cannot read the weights {path}: {error}") from error
    state = loaded
    if isinstance(loaded, Mapping):
        state = next((loaded[key] for key in STATE_KEYS if isinstance(loaded.get(key), Mapping)), loaded)
    if not (isinstance(state, Mapping) and state and all(isinstance(value, Tensor) for value in state.values())):
        raise BadWeights(f"{path} holds no state dict, neither bare nor under {', '.join(STATE_KEYS)}")
    return _bare(dict(state))


def _refusal(path: Path, error: pickle.UnpicklingError) -> str:
    """Why torch would not unpickle the file."""
    asked: list[str] = []
    with suppress(Exception):  # knows zip files only; for others the name stands in the error
        asked = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    if not asked:
        asked = re.findall(r"GLOBAL ([\w.]+)", str(error))
    if not asked:
        return f"cannot read the weights {path}: it is not a file of torch.save ({str(error).splitlines()[0]})"
    return (
        f"{path} is refused: it holds more than tensors, and reading it would run code (it asks for "
        f"{', '.join(asked)}). Nothing was run. Get the weights as safetensors, or save the state dict alone"
    )


def _bare(state: dict[str, V]) -> dict[str, V]:
    """The state dict with the names that the network itself gives."""
    for wrapper in WRAPPERS * 2:  # one may be around the other, in either order
        if state and all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return state
