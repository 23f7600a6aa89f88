"""A generator: a network with its interpolant, its prediction type, its conditions and its decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from models.condition import Condition
from models.guidance import Channels
from models.sit import SiT, SiTConfig

#: The network's conditioning inputs, each `[B, ...]` with one row a sample; what they are is the generator's affair.
Rows = tuple[Tensor, ...]


class Decoder(Protocol):
    """The way between states and pixels."""

    def decode(self, x: Tensor) -> Tensor:
        """States `[B, C, H, W]` to images `[B, H', W', 3]` uint8 on the CPU."""

    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, H', W', 3]` uint8 to states `[B, C, H, W]` float32 on the CPU, noiseless (t = 1)."""


class Pixels:
    """States are the pixels themselves, in about [-1, 1]."""

    def decode(self, x: Tensor) -> Tensor:
        """See `Decoder.decode`."""
        return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    def encode(self, images: Tensor) -> Tensor:
        """See `Decoder.encode`."""
        return images.permute(0, 3, 1, 2).float() / 127.5 - 1


class Generator(Protocol):
    """What the engine needs of a model. Attributes may be read-only.

    Attributes:
        interpolant: `Linear`, `GVP` or `VP`.
        prediction: `velocity`, `score` or `noise`.
        guided_channels: `all` or `first3`, the channels that guidance moves.
        shape: of one sample's state, `(C, H, W)`.
        parameters: number of the network's parameters.
        decoder: the way from states to pixels.
    """

    @property
    def interpolant(self) -> str: ...
    @property
    def prediction(self) -> str: ...
    @property
    def guided_channels(self) -> Channels: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def parameters(self) -> int: ...
    @property
    def decoder(self) -> Decoder: ...

    def rows(self, conditions: Sequence[Condition]) -> Rows:
        """The conditioning of `conditions`, one row each.

        Raises:
            ValueError: a condition lacks what the model is told by, or its class is out of range.
        """

    def unconditional(self, batch: int) -> Rows:
        """The conditioning that stands for "no condition", `batch` rows, for classifier-free guidance."""

    def evaluate(self, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        """The network's prediction, one row a forward.

        Args:
            x: `[B, C, H, W]` float32.
            t: `[B]` float32 in [0, 1].
            rows: conditioning of each row.

        Returns:
            `[B, C, H, W]` float32 on the CPU.
        """

    def compile(self) -> None:
        """Compile the network; each batch size is compiled at its first use."""


class SiTGenerator:
    """A class-conditional SiT; see `Generator`.

    Args:
        net: the network, on its device and in its dtype.
        interpolant, prediction, guided_channels, decoder: see `Generator`.
    """

    def __init__(
        self,
        net: SiT,
        *,
        interpolant: str,
        prediction: str,
        guided_channels: Channels = "all",
        decoder: Decoder | None = None,
    ) -> None:
        self.net: nn.Module = net
        self.config: SiTConfig = net.config
        self.interpolant, self.prediction, self.guided_channels = interpolant, prediction, guided_channels
        self.decoder: Decoder = decoder or Pixels()
        parameter = next(net.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.parameters = sum(p.numel() for p in net.parameters())

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Generator`."""
        return (self.config.in_channels, self.config.input_size, self.config.input_size)

    def compile(self) -> None:
        """See `Generator.compile`."""
        self.net = torch.compile(self.net, dynamic=False)  # type: ignore[assignment]

    def rows(self, conditions: Sequence[Condition]) -> Rows:
        """`[B]` int64 class indices; see `Generator.rows`."""
        indices = [condition.class_index for condition in conditions]
        for index in indices:
            if index is None or not 0 <= index < self.config.num_classes:
                raise ValueError(f"class {index} is not in [0, {self.config.num_classes})")
        return (torch.tensor(indices),)

    def unconditional(self, batch: int) -> Rows:
        """The null class, one past the last; see `Generator.unconditional`."""
        return (torch.full((batch,), self.config.num_classes),)

    @torch.inference_mode()
    def evaluate(self, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        """See `Generator.evaluate`."""
        out = self.net(x.to(self.device, self.dtype), t.to(self.device), rows[0].to(self.device))
        return out.float().cpu()
