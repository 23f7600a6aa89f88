"""A generator: a network with its interpolant, its prediction type, its conditions and its decoder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sitsearch.models.condition import Condition
from sitsearch.models.guidance import Channels
from sitsearch.models.sit import SiT, SiTConfig

log = logging.getLogger(__name__)

#: Batch sizes that a network is compiled for, at most; what comes after runs eagerly.
SIZES = 64

#: The network's conditioning inputs, each `[B, ...]` with one row a sample; what they are is the generator's affair.
Rows = tuple[Tensor, ...]


class Decoder(Protocol):
    """The way between states and pixels."""

    def decode(self, x: Tensor) -> Tensor:
        """States `[B, C, H, W]` to images `[B, H', W', 3]` uint8 on the CPU."""

    def render(self, x: Tensor) -> Tensor:
        """States `[B, C, H, W]` to images `[B, 3, H', W']` float32 in [0, 1] on x's device, with their graph."""

    def encode(self, images: Tensor) -> Tensor:
        """Images `[B, H', W', 3]` uint8 to states `[B, C, H, W]` float32 on the CPU, noiseless (t = 1)."""


class Pixels:
    """States are the pixels themselves, in about [-1, 1]."""

    def decode(self, x: Tensor) -> Tensor:
        """See `Decoder.decode`."""
        return ((x.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()

    def render(self, x: Tensor) -> Tensor:
        """See `Decoder.render`."""
        return (x.float().clamp(-1, 1) + 1) / 2

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
        macs: multiply-accumulates of one forward: one network row of one sample (1 MAC = 2 FLOPs).
        decoder: the way from states to pixels.
        device: where the network is, and states are best kept.

    It may have `digest`, that of the card it was loaded from, and `compiled`, whether `compile` has changed it.
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
    def macs(self) -> int: ...
    @property
    def decoder(self) -> Decoder: ...
    @property
    def device(self) -> torch.device: ...

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
            `[B, C, H, W]` float32 on x's device.
        """

    def compile(self) -> None:
        """Compile the network, each batch size at its first use; see `compiled`."""


def compiled(net: nn.Module, device: torch.device) -> nn.Module:
    """The network compiled for its device, or as it is, with a line in the log, where nothing can be compiled.

    Shapes are fixed, each compiled at its first use. On CUDA each becomes a CUDA graph; on the CPU the weights are laid
    out anew for the matrix products ("freezing"), so that they must not change afterwards.
    """
    on_cuda = device.type == "cuda"
    try:  # a compiler may be absent, or there and unable; a kernel of its own shows it
        with torch.inference_mode():
            torch.compile(lambda x: nn.functional.gelu(x) * 2, dynamic=False)(torch.zeros(8, 8, device=device))
    except Exception as error:  # torch's many ways to say so share no base class
        log.warning("nothing can be compiled here, so the network runs eagerly: %s", str(error).partition("\n")[0])
        return net
    once: dict[str, Any] = {"dynamic": False, "recompile_limit": SIZES, "isolate_recompiles": True}
    if on_cuda:
        return torch.compile(net, options={"triton.cudagraphs": True}, **once)  # type: ignore[return-value]
    return _Frozen(torch.compile(net, **once))  # type: ignore[arg-type]


class _Frozen(nn.Module):
    """A compiled network whose weights become constants.

    Both halves of the compiler must know of it while they trace, so it cannot be given as an option.
    """

    def __init__(self, net: nn.Module) -> None:
        from torch._inductor import config  # its import takes as long as all of torch's

        super().__init__()
        self.net = net
        self._settings = config

    def forward(self, *args: Any, **named: Any) -> Any:
        with self._settings.patch(freezing=True):
            return self.net(*args, **named)


class SiTGenerator:
    """A class-conditional SiT; see `Generator`.

    Args:
        net: the network, on its device and in its dtype.
        interpolant, prediction, guided_channels, decoder: see `Generator`.
    """

    digest = ""
    compiled = False

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
        self.macs = net.config.macs

    @property
    def shape(self) -> tuple[int, int, int]:
        """See `Generator`."""
        return (self.config.in_channels, self.config.input_size, self.config.input_size)

    def compile(self) -> None:
        """See `Generator.compile`."""
        net, self.net = self.net, compiled(self.net, self.device)
        self.compiled = self.net is not net

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
        t, label = (part.to(self.device, non_blocking=True) for part in (t, rows[0]))
        out = self.net(x.to(self.device, self.dtype, non_blocking=True), t, label)
        # A CUDA graph's output is overwritten by its next run: what is handed out must be a copy.
        return out.to(x.device, torch.float32, copy=self.device.type == "cuda")
