"""Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from sitsearch.models.generator import Rows
from sitsearch.models.text_to_image.base import TextToImage


class StableDiffusion3(TextToImage):
    """Stable Diffusion 3 and 3.5 (`StableDiffusion3Pipeline`); see `TextToImage`.

    The pipeline may lack T5 (`text_encoder_3`), whose part of the tokens is then zeros.

    Raises:
        ValueError: as `TextToImage`, or the image is larger than the transformer's table of positions.
    """

    default_tokens = 256

    def __init__(self, pipeline: Any, **options: Any) -> None:
        super().__init__(pipeline, **options)
        largest = pipeline.transformer.config.pos_embed_max_size * self._patch()
        if max(self.shape[1:]) > largest:
            side = largest * pipeline.vae_scale_factor
            raise ValueError(f"the transformer has positions for images of up to {side} pixels a side")

    def _channels(self) -> int:
        return int(self.pipeline.transformer.config.in_channels)

    def _patch(self) -> int:
        return int(self.pipeline.transformer.config.patch_size)

    def _trained_side(self) -> int:
        return int(self.pipeline.transformer.config.sample_size)

    def _encode(self, prompt: str) -> Rows:
        tokens, _, pooled, _ = self.pipeline.encode_prompt(
            prompt,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.max_tokens,
        )
        return tokens, pooled

    def _text_tokens(self) -> int:
        # CLIP's tokens go before T5's, which are zeros if there is no T5
        return int(self.pipeline.text_encoder.config.max_position_embeddings) + self.max_tokens

    def _transform(self, net: nn.Module, x: Tensor, sigma: Tensor, tokens: Tensor, pooled: Tensor) -> Tensor:
        timestep = sigma * self.pipeline.scheduler.config.num_train_timesteps
        out: Tensor = net(
            hidden_states=x,
            timestep=timestep,
            encoder_hidden_states=tokens,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
        return out
