"""What a text-to-image pipeline's transformer costs, read off its configuration without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from sitsearch.models.autoencoder import downsampling
from sitsearch.models.errors import BadWeights
from sitsearch.models.text_to_image import PIPELINES


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of the pipeline's transformer.

    Raises:
        BadWeights: the folder holds no pipeline that can be loaded.
    """
    _, net = _transformer(folder)
    return sum(parameter.numel() for parameter in net.parameters())


def count_macs(folder: Path, *, resolution: int, max_tokens: int | None = None) -> int:
    """Multiply-accumulates of one forward of one sample, text tokens included (1 MAC = 2 FLOPs).

    The transformer is run on shapes alone.

    Args:
        folder: the pipeline's, as `load_text_to_image` reads it.
        resolution: side of the images in pixels.
        max_tokens: see `TextToImage`.

    Raises:
        BadWeights: the folder holds no pipeline that can be loaded.
    """
    kind, net = _transformer(folder)
    tokens, side = max_tokens or PIPELINES[kind].default_tokens, resolution // downsampling(folder / "vae")
    config = net.config
    shapes: dict[str, tuple[int, ...]] = {"timestep": (1,), "pooled_projections": (1, config.pooled_projection_dim)}
    if kind == "FluxPipeline":
        patches = (side // 2) ** 2
        shapes |= {"hidden_states": (1, patches, config.in_channels), "guidance": (1,)}
        shapes |= {"img_ids": (patches, 3), "txt_ids": (tokens, 3)}
    else:
        shapes["hidden_states"] = (1, config.in_channels, side, side)
        # CLIP's tokens go before T5's, which are zeros if there is no T5
        tokens += int(_json(folder / "text_encoder" / "config.json")["max_position_embeddings"])
    shapes["encoder_hidden_states"] = (1, tokens, config.joint_attention_dim)
    inputs = {name: torch.zeros(shape, device="meta") for name, shape in shapes.items()}
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(**inputs)
    return int(counter.get_total_flops()) // 2


def _transformer(folder: Path) -> tuple[str, Any]:
    """The pipeline's class, and its transformer on the `meta` device."""
    index = _json(folder / "model_index.json")
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise BadWeights(f"{folder} holds a {kind}; there are {', '.join(PIPELINES)}")
    import diffusers

    try:
        with torch.device("meta"):
            return kind, getattr(diffusers, index["transformer"][1]).from_config(
                _json(folder / "transformer/config.json")
            )
    except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
        raise BadWeights(f"the transformer in {folder} cannot be made: {error!r}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BadWeights(f"cannot read the pipeline's {path}: {error}") from error
