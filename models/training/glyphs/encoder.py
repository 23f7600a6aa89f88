"""The glyph classifier's features half-way, for alignment."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from sitsearch.models.loading.checkpoint import read_checkpoint
from sitsearch.models.verifiers.glyph_net import GlyphNet


class GlyphEncoder:
    """See `sitsearch.models.training.encoders.Encoder`: states `[B, 3, 32, 32]` in [-1, 1] to an 8x8 grid of features.

    Raises:
        BadWeights: the file is missing or damaged.
    """

    def __init__(self, weights: Path, device: torch.device) -> None:
        state = read_checkpoint(weights)
        self._net = GlyphNet(width=state["to_8x8.0.weight"].shape[0])
        self._net.load_state_dict(state)
        self._net.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
        self.channels = 2 * state["to_8x8.0.weight"].shape[0]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """`[B, 64, channels]`, in bfloat16."""
        images = ((x + 1) / 2).to(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            return self._net.grid_features(images).flatten(2).transpose(1, 2)
