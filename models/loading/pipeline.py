"""What a text-to-image pipeline's transformer costs, read off its folder without its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from models.autoencoder import downsampling
from models.errors import BadWeights
from models.loading.checkpoint import read_shapes
from models.text_to_image import PIPELINES


def count_parameters(folder: Path) -> int:
    """Numbers in the weights of the pipeline's transformer.

    Raises:
        BadWeights: see `read_shapes`.
    """
    return sum(shape.numel() for shape in read_shapes(folder / "transformer").values())


def count_macs(folder: Path, *, resolution: int, max_tokens: int | None = None) -> int:
    """Multiply-accumulates of one forward of one sample, text tokens included (1 MAC = 2 FLOPs).

    The transformer is built without memory and run on shapes alone.

    Args:
        folder: the pipeline's, as `load_text_to_image` reads it.
        resolution: side of the images in pixels.
        max_tokens: see `TextToImage`.

    Raises:
        BadWeights: the folder holds no pipeline that can be loaded.
    """
    try:
        kind = _json(folder / "model_index.json")["_class_name"]
        side = resolution // downsampling(folder / "vae")
        tokens = max_tokens or PIPELINES[kind].default_tokens
        return _count(folder, kind, side, tokens)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"cannot count the operations of the pipeline in {folder}: {error!r}") from error


def _count(folder: Path, kind: str, side: int, tokens: int) -> int:
    import diffusers

    with torch.device("meta"):
        net = getattr(diffusers, _json(folder / "model_index.json")["transformer"][1]).from_config(
            diffusers.SD3Transformer2DModel.load_config(folder / "transformer")
        )
        config = net.config
        inputs: dict[str, Any] = {
            "timestep": torch.zeros(1),
            "pooled_projections": torch.zeros(1, config.pooled_projection_dim),
        }
        if kind == "FluxPipeline":
            patches = (side // 2) ** 2
            inputs |= {
                "hidden_states": torch.zeros(1, patches, config.in_channels),
                "img_ids": torch.zeros(patches, 3),
                "txt_ids": torch.zeros(tokens, 3),
                "guidance": torch.zeros(1),
            }
        else:
            inputs["hidden_states"] = torch.zeros(1, config.in_channels, side, side)
            # CLIP's tokens go before T5's, which are zeros if there is no T5
            tokens += _json(folder / "text_encoder" / "config.json")["max_position_embeddings"]
        inputs["encoder_hidden_states"] = torch.zeros(1, tokens, config.joint_attention_dim)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(**inputs)
    return int(counter.get_total_flops()) // 2


def _json(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text())
    if not isinstance(loaded, dict):
        raise TypeError(f"{path} holds no object")
    return loaded
