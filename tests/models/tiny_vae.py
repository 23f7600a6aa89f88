"""A tiny random `AutoencoderKL` of the real class, in the folder format of diffusers."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file

WEIGHTS = "diffusion_pytorch_model.safetensors"


def save_vae(folder: Path, *, seed: int = 0) -> AutoencoderKL:
    """Four latent channels and an eighth of the side, as Stable Diffusion's, and its scale factor (the default)."""
    torch.manual_seed(seed)
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=64,
    ).eval()
    vae.save_pretrained(folder)
    return vae


def with_former_names(folder: Path) -> None:
    """Rename the attention's weights to what they were called when Stable Diffusion's VAEs were published."""
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(folder / WEIGHTS)
    for new, old in former.items():
        state = {name.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): value for name, value in state.items()}
    save_file(state, folder / WEIGHTS, {"format": "pt"})
