"""Classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598), everywhere or within an interval of time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Channels = Literal["all", "first3"]


def combine(conditional: Tensor, unconditional: Tensor, scale: float, *, channels: Channels = "all") -> Tensor:
    """The guided prediction, `uncond + scale * (cond - uncond)`.

    Args:
        conditional, unconditional: `[B, C, H, W]`, the network's predictions with the class and with the null class.
        scale: guidance scale; 1 gives the conditional prediction.
        channels: `all`, or `first3`: only the first three channels are guided and the rest stay conditional, which is
            what the published SiT samples were made with.

    Raises:
        ValueError: `channels` is neither.
    """
    if channels not in ("all", "first3"):
        raise ValueError(f"channels must be 'all' or 'first3', not {channels!r}")
    guided = unconditional + scale * (conditional - unconditional)
    if channels == "first3":
        guided[:, 3:] = conditional[:, 3:]
    return guided


@dataclass(frozen=True)
class Guidance:
    """When and how strongly a trajectory is guided.

    Attributes:
        scale: guidance scale, at least 0; 1 is no guidance.
        interval: guide only while `interval[0] <= t <= interval[1]` (Kynkaanniemi et al. 2024, arXiv 2404.07724);
            `(0, 1)` is always. Outside it only the conditional row is evaluated.
        channels: see `combine`.

    Raises:
        ValueError: the scale is negative, or the interval is not within [0, 1] and in order.
    """

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    channels: Channels = "all"

    def __post_init__(self) -> None:
        if not self.scale >= 0:
            raise ValueError(f"scale must be at least 0, not {self.scale}")
        low, high = self.interval
        if not 0 <= low <= high <= 1:
            raise ValueError(f"interval must be in order and within [0, 1], not {self.interval}")

    def active(self, t: float) -> bool:
        """Whether an evaluation at time `t` is guided."""
        return self.scale != 1 and self.interval[0] <= t <= self.interval[1]

    def rows(self, t: float) -> int:
        """Network rows (forwards) that one evaluation at time `t` takes: 2 where guided, else 1."""
        return 2 if self.active(t) else 1

    def combine(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        """`combine` at this scale and on these channels."""
        return combine(conditional, unconditional, self.scale, channels=self.channels)
