"""Latents to pixels and back through a diffusers `AutoencoderKL` (Rombach et al. 2022, arXiv 2112.10752).

The published SiT works on the latents of Stable Diffusion's VAE: 4 channels, an eighth of the image's side, times
0.18215.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor

from sitsearch.models.errors import BadWeights, MissingLibrary
from sitsearch.models.generator import Pixels
from sitsearch.models.loading.finite import check_finite


class LatentImages:
    """The way between latents and pixels; see `sitsearch.models.generator.Decoder`.

    Latents are (z - shift_factor) * scaling_factor of the VAE's own z; both factors are its config's.

    Args:
        vae: a diffusers `AutoencoderKL` (or one with its interface), on its device and in its dtype.
        batch: samples of one pass of the VAE, at least 1. Passes are padded to that many, so that a sample's image does
            not depend on how many others it is decoded with; the memory that decoding takes grows with it.
        tiling: decode and encode images larger than the VAE was trained on in overlapping tiles with blended seams:
            bounded memory, and slightly other pixels.

    Raises:
        ValueError: `batch` is less than 1.
    """

    def __init__(self, vae: Any, *, batch: int = 1, tiling: bool = False) -> None:
        if batch < 1:
            raise ValueError(f"batch must be at least 1, not {batch}")
        self.vae, self.batch = vae, batch
        self.scale: float = vae.config.scaling_factor
        self.shift: float = vae.config.get("shift_factor") or 0.0
        self.pixels = Pixels()
        if tiling:
            vae.enable_tiling()

    @torch.inference_mode()
    def decode(self, x: Tensor) -> Tensor:
        """Latents `[B, C, h, w]` to images `[B, H, W, 3]` uint8 on the CPU."""
        images = []
        for part in x.split(self.batch):
            images.append(self.pixels.decode(self._decoded(part)).cpu())
        return torch.cat(images)

    def render(self, x: Tensor) -> Tensor:
        """See `Decoder.render`."""
        return torch.cat([self.pixels.render(self._decoded(part)).to(x.device) for part in x.split(self.batch)])

    def _decoded(self, part: Tensor) -> Tensor:
        """What the VAE makes of at most `batch` latents, in about [-1, 1]."""
        z = self._padded(part) / self.scale + self.shift
        decoded: Tensor = self.vae.decode(z, return_dict=False)[0][: len(part)]
        return decoded

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, H, W, 3]` uint8 to latents `[B, C, h, w]` float32 on the CPU: the mode of the VAE's posterior."""
        latents = []
        for part in images.split(self.batch):
            z = self.vae.encode(self._padded(self.pixels.encode(part)), return_dict=False)[0].mode()[: len(part)]
            latents.append(((z - self.shift) * self.scale).float().cpu())
        return torch.cat(latents)

    def _padded(self, part: Tensor) -> Tensor:
        part = F.pad(part, (0, 0) * 3 + (0, self.batch - len(part)))
        return part.to(self.vae.device, self.vae.dtype)


def downsampling(folder: Path) -> int:
    """Pixels a latent cell, along one side, of the VAE in a folder; its weights are not read.

    Raises:
        BadWeights: the folder holds no `config.json` of an `AutoencoderKL`.
    """
    try:
        config = json.loads((folder / "config.json").read_text())
        if config["_class_name"] != "AutoencoderKL":
            raise ValueError(f"a {config['_class_name']}, not an AutoencoderKL")
        return int(2 ** (len(config["block_out_channels"]) - 1))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadWeights(f"{folder} holds no AutoencoderKL: {error!r}") from error


def load_autoencoder(
    folder: Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    batch: int = 1,
    tiling: bool = False,
) -> LatentImages:
    """The VAE in a folder of the diffusers format: `config.json` and `diffusion_pytorch_model.safetensors`.

    Args:
        folder: the folder; nothing is fetched, and only safetensors are read.
        device, dtype: where it runs and in what precision. Half precision changes the pixels visibly.
        batch, tiling: see `LatentImages`.

    Raises:
        BadWeights: the folder holds no `AutoencoderKL`, or one whose weights are damaged, incomplete or not finite.
        MissingLibrary: diffusers is not installed.
    """
    downsampling(folder)
    try:
        # Imported here because it takes seconds, and the bundled models decode no latents.
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise MissingLibrary("decoding latents needs diffusers: pip install diffusers") from error
    try:
        vae, report = AutoencoderKL.from_pretrained(  # type: ignore[no-untyped-call]
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BadWeights(f"cannot load the autoencoder in {folder}: {error}") from error
    # diffusers would leave these as random numbers, with a warning in the log
    wrong = [*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])]
    if wrong:
        raise BadWeights(f"the autoencoder in {folder} has no fit weights for {wrong[0]!r} ({len(wrong)} such)")
    check_finite(vae.named_parameters(), Path(folder))
    vae = vae.to(device).eval().requires_grad_(False)
    return LatentImages(vae, batch=batch, tiling=tiling)
