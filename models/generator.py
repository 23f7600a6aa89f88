"""A generator: a SiT network with its interpolant, its prediction type and its decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.guidance import Channels
from models.sit import SiT, SiTConfig


class Generator:
    """What the engine needs of a model: one batched network evaluation, and the way from state to pixels.

    Args:
        net: the network, on its device and in its dtype.
        interpolant: name of the interpolant it was trained on.
        prediction: `velocity`, `score` or `noise`.
        guided_channels: `all` or `first3`, the channels that guidance moves.
    """

    def __init__(self, net: SiT, *, interpolant: str, prediction: str, guided_channels: Channels = "all") -> None:
        self.net: nn.Module = net
        self.config: SiTConfig = net.config
        self.interpolant, self.prediction, self.guided_channels = interpolant, prediction, guided_channels
        parameter = next(net.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.parameters = sum(p.numel() for p in net.parameters())

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one sample's state, `(C, H, W)`."""
        return (self.config.in_channels, self.config.input_size, self.config.input_size)

    @property
    def null_class(self) -> int:
        """The class index that stands for "no condition"."""
        return self.config.num_classes

    def compile(self) -> None:
        """Compile the network; each batch size is compiled at its first use."""
        self.net = torch.compile(self.net, dynamic=False)  # type: ignore[assignment]

    @torch.inference_mode()
    def evaluate(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        """The network's prediction, one row a forward.

        Args:
            x: `[B, C, H, W]` float32.
            t: `[B]` float32 in [0, 1].
            y: `[B]` int64 in [0, num_classes].

        Returns:
            `[B, C, H, W]` float32 on the CPU.
        """
        out = self.net(x.to(self.device, self.dtype), t.to(self.device), y.to(self.device))
        return out.float().cpu()

    @torch.inference_mode()
    def decode(self, x: Tensor) -> Tensor:
        """Final states `[B, 3, H, W]` in about [-1, 1] to images `[B, H, W, 3]` uint8."""
        return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
