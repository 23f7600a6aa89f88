"""The small convolutional network that reads a glyph: the bundled classifier's architecture."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip, pre-activation (arXiv 1603.05027)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class GlyphNet(nn.Module):
    """Images `[B, 3, 32, 32]` in [0, 1] to logits `[B, num_classes]`."""

    def __init__(self, num_classes: int = 62, width: int = 48) -> None:
        super().__init__()
        self.features_dim = 4 * width
        self.to_8x8 = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, stride=2, bias=False),
            ResidualBlock(width),
            nn.Conv2d(width, 2 * width, 3, padding=1, stride=2, bias=False),
            ResidualBlock(2 * width),
        )
        self.to_vector = nn.Sequential(
            nn.Conv2d(2 * width, 4 * width, 3, padding=1, stride=2, bias=False),
            ResidualBlock(4 * width),
            nn.BatchNorm2d(4 * width),
            nn.ReLU(),
        )
        self.head = nn.Linear(4 * width, num_classes)

    def grid_features(self, images: Tensor) -> Tensor:
        """The features half-way, `[B, 2 * width, 8, 8]`."""
        return self.to_8x8(images * 2 - 1)

    def features(self, images: Tensor) -> Tensor:
        """The pooled features before the last layer, `[B, features_dim]`."""
        return self.to_vector(self.grid_features(images)).mean(dim=(2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(F.dropout(self.features(images), 0.1, self.training))
