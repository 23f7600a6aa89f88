"""FLUX.1 (Black Forest Labs 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sitsearch.models.generator import Rows
from sitsearch.models.text_to_image.base import TextToImage


class Flux(TextToImage):
    """FLUX.1 (`FluxPipeline`); see `TextToImage`.

    Its transformer reads a latent as a sequence of 2 x 2 patches; states stay `[C, H, W]` and are packed on the way in.
    """

    default_tokens = 512

    def __init__(self, pipeline: Any, **options: Any) -> None:
        super().__init__(pipeline, **options)
        height, width = self.shape[1] // 2, self.shape[2] // 2
        # Positions: (0, row, column) of each patch; a text's tokens are all at (0, 0, 0).
        ids = torch.zeros(height, width, 3)
        ids[..., 1], ids[..., 2] = torch.arange(height)[:, None], torch.arange(width)
        self._image_ids = ids.reshape(-1, 3).to(self.device, self.dtype)

    def _channels(self) -> int:
        return int(self.pipeline.transformer.config.in_channels) // 4

    def _patch(self) -> int:
        return 2

    def _trained_side(self) -> int:
        return int(self.pipeline.default_sample_size)

    def _encode(self, prompt: str) -> Rows:
        tokens, pooled, _ = self.pipeline.encode_prompt(
            prompt, prompt_2=None, device=self.device, max_sequence_length=self.max_tokens
        )
        return tokens, pooled

    def _text_tokens(self) -> int:
        return self.max_tokens

    def _transform(self, net: nn.Module, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        packed = x.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
        guided = self.pipeline.transformer.config.guidance_embeds
        out: Tensor = net(
            hidden_states=packed.reshape(batch, -1, channels * 4),
            timestep=sigma,
            guidance=sigma.new_full((batch,), self.embedded_guidance) if guided else None,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            txt_ids=tokens.new_zeros(tokens.shape[1], 3),
            img_ids=self._image_ids.to(x.device),
            return_dict=False,
        )[0]
        patches = out.reshape(batch, height // 2, width // 2, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return patches.reshape(batch, channels, height, width)
