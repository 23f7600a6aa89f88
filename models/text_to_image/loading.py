"""Which pipelines there are, and how one is read from a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from sitsearch.models.errors import BadWeights, MissingLibrary
from sitsearch.models.loading.finite import check_finite
from sitsearch.models.text_to_image.base import TextToImage
from sitsearch.models.text_to_image.flux import Flux
from sitsearch.models.text_to_image.sd3 import StableDiffusion3

#: Which pipelines can be loaded, by the class that their `model_index.json` names.
PIPELINES: dict[str, type[TextToImage]] = {"StableDiffusion3Pipeline": StableDiffusion3, "FluxPipeline": Flux}


def load_text_to_image(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    without: Sequence[str] = (),
    **options: Any,
) -> TextToImage:
    """The pipeline in a folder that diffusers' `save_pretrained` wrote, or a snapshot of such a repository.

    Only safetensors are read, no code of the folder is run, and nothing is fetched.

    Args:
        folder: holds `model_index.json`.
        device: where it runs.
        dtype: precision of transformer and text encoders; the VAE stays in float32, as half precision changes the
            pixels visibly.
        without: text encoders to leave out, with their tokenizers: `("text_encoder_3",)` is SD3 without T5.
        options: the other arguments of `TextToImage`.

    Raises:
        BadWeights: the folder holds no such pipeline, or a part of it is missing, damaged or incomplete.
        MissingLibrary: diffusers or transformers is not installed.
        ValueError: an option does not fit the pipeline.
    """
    try:
        index = json.loads((folder / "model_index.json").read_text())
        name = index["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"{folder} holds no diffusers pipeline: {error!r}") from error
    if name not in PIPELINES:
        raise BadWeights(f"{folder} holds a {name}; there are {', '.join(PIPELINES)}")
    try:
        # Imported here because it takes seconds, and the bundled models read no prompts.
        import diffusers
        import transformers
    except ImportError as error:
        raise MissingLibrary("text-to-image models need diffusers: pip install diffusers transformers") from error

    libraries = {"diffusers": diffusers, "transformers": transformers}
    parts: dict[str, nn.Module | None] = {}
    for encoder in without:
        parts |= {encoder: None, encoder.replace("text_encoder", "tokenizer"): None}
    try:
        for part, kind in index.items():
            if part in parts or not isinstance(kind, list) or kind[0] not in libraries:
                continue
            made_of = getattr(libraries[kind[0]], kind[1])
            if issubclass(made_of, nn.Module):
                parts[part] = _load_part(made_of, folder / part, torch.float32 if part == "vae" else dtype)
        pipeline = getattr(diffusers, name).from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, **parts
        )
    except BadWeights:
        raise
    except (OSError, ValueError, RuntimeError, AttributeError, TypeError, SafetensorError) as error:
        raise BadWeights(f"cannot load the pipeline in {folder}: {error}") from error
    return PIPELINES[name](pipeline, device=device, **options)


def _load_part(made_of: Any, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A network of the pipeline.

    Raises:
        BadWeights: its file lacks some of its weights, which the libraries would leave to chance with a warning, or
            they are not finite.
    """
    net, report = made_of.from_pretrained(
        folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise BadWeights(f"cannot load {folder}: it has no weights for {missing[0]!r} ({len(missing)} such)")
    check_finite(net.named_parameters(), folder)
    loaded: nn.Module = net
    return loaded
