"""SiT networks from checkpoints, with the network's shape read off the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.checkpoint import read_checkpoint
from sitsearch.models.sit import SIZES, SiT, SiTConfig

#: Heads cannot be seen in the weights: a width of the paper has the paper's, another has heads of 64 channels.
HEADS = {hidden_size: num_heads for _, hidden_size, num_heads in SIZES.values()}
HEAD_DIM = 64


def config_of(shapes: Mapping[str, torch.Size], given: Mapping[str, Any] | None = None) -> SiTConfig:
    """The shape of the network whose weights have these shapes.

    Read off are: width, patch size and input channels (patch embedding), input size (position embedding, a square
    grid), depth (blocks), classes (label table, whose last row is the null class) and `learn_sigma` (channels of the
    last layer).

    Args:
        shapes: name to shape, under the names of the published checkpoints.
        given: fields of `SiTConfig` that are known beforehand. `num_heads` is taken, the others are compared.

    Raises:
        BadWeights: the weights are not a SiT's, or are of another shape than `given` says.
        ValueError: `given` has a field that `SiTConfig` has not.
    """
    given = dict(given or {})
    if unknown := sorted(given.keys() - {field.name for field in fields(SiTConfig)}):
        raise ValueError(f"a SiT has no {unknown[0]!r}")
    try:
        hidden_size, in_channels, patch_size, _ = shapes["x_embedder.proj.weight"]
        _, tokens, _ = shapes["pos_embed"]
        classes, _ = shapes["y_embedder.embedding_table.weight"]
        written, _ = shapes["final_layer.linear.weight"]
        depth = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("blocks."))
    except KeyError as error:
        raise BadWeights(f"these are not the weights of a SiT: there is no {error}") from error
    except ValueError as error:
        raise BadWeights(f"these are not the weights of a SiT: {error}") from error
    grid = math.isqrt(tokens)
    out_channels = written / patch_size**2
    if grid**2 != tokens:
        raise BadWeights(f"the position embedding has {tokens} tokens, which are not a square")
    if out_channels not in (in_channels, 2 * in_channels):
        raise BadWeights(f"the last layer writes {out_channels:g} channels, neither {in_channels} nor twice that")
    heads = given.get("num_heads") or HEADS.get(hidden_size) or hidden_size / HEAD_DIM
    if heads != int(heads):
        raise BadWeights(f"how many heads a network of width {hidden_size} has cannot be read off: give num_heads")
    read: dict[str, Any] = {
        "input_size": grid * patch_size,
        "patch_size": patch_size,
        "in_channels": in_channels,
        "hidden_size": hidden_size,
        "depth": depth,
        "num_heads": int(heads),
        "num_classes": classes - 1,
        "learn_sigma": out_channels == 2 * in_channels,
    }
    for name, value in given.items():
        if read[name] != value:
            raise BadWeights(
                f"the weights do not fit the network: {name} is {read[name]} in them, and given as {value}"
            )
    try:
        return SiTConfig(**read)
    except ValueError as error:
        raise BadWeights(f"these are not the weights of a SiT: {error}") from error


def load_sit(
    path: Path,
    given: Mapping[str, Any] | None = None,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SiT:
    """The SiT of a checkpoint, for evaluation.

    Args:
        path: see `read_checkpoint`.
        given: see `config_of`.
        device, dtype: where it runs and in what precision.

    Raises:
        BadWeights: the checkpoint cannot be read, is not a SiT's, or does not fit `given`.
        ValueError: see `config_of`.
    """
    state = read_checkpoint(path)
    try:
        net = blank(config_of({name: tensor.shape for name, tensor in state.items()}, given))
        # The checkpoint's tensors become the network's: nothing is initialised to be overwritten, or held twice.
        net.load_state_dict(state, assign=True)
    except (BadWeights, RuntimeError) as error:
        raise BadWeights(f"{path} does not fit the network: {error}") from error
    return net.to(device=device, dtype=dtype).eval().requires_grad_(False)


#: What fills fresh weights, within `torch.nn.init`.
_FILLS = frozenset({"normal_", "uniform_", "xavier_uniform_", "kaiming_uniform_", "zero_"})


class _Unfilled(TorchFunctionMode):
    """Leaves fresh weights as they are: memory that is reserved, and not taken until it is written.

    The `meta` device would do the same, if computing the position embedding on it did not make torch import its
    compiler, which takes longer than all the rest.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func.__name__ in _FILLS:
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def blank(config: SiTConfig) -> SiT:
    """The network with weights that are yet to be filled: only its position embedding is right."""
    with _Unfilled():
        return SiT(config)
