"""The network as it is trained: with a projection for alignment, and in the precision that the step is computed in."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sitsearch.models.sit import SiT, SiTConfig


class Trainee(nn.Module):
    """A SiT and, for alignment, a projection of the tokens of block `align_depth` to `features` channels.

    Raises:
        ValueError: there is no such block.
    """

    def __init__(self, config: SiTConfig, *, align_depth: int | None = None, features: int = 0) -> None:
        super().__init__()
        if align_depth is not None and not 1 <= align_depth <= config.depth:
            raise ValueError(f"there is no block {align_depth} to align among {config.depth}")
        self.net = SiT(config)
        self.align_depth = align_depth
        dim = config.hidden_size
        if align_depth is not None:
            self.project = nn.Sequential(nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, features))

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """The prediction `[B, C, H, W]` and the projected tokens `[B, N, features]`, if they are wanted."""
        net = self.net
        if self.align_depth is None:
            return net(x, t, y), None
        tokens = net.x_embedder(x) + net.pos_embed
        c = net.t_embedder(t) + net.y_embedder(y)
        projected = None
        for depth, block in enumerate(net.blocks, 1):
            tokens = block(tokens, c)
            if depth == self.align_depth:
                projected = self.project(tokens)
        return net.unpatchify(net.final_layer(tokens, c)), projected


class Runner:
    """Computes predictions and gradients of a trainee, over one or many processes.

    `float32` runs the trainee itself; `bf16` the same under autocast; `bf16-copy` a bfloat16 copy of it, whose
    gradients are handed to the float32 weights and which is refreshed from them after the step. (On a CPU autocast's
    casts cost more than they save on small networks; the copy has none.)

    Args:
        trainee: on the accelerator's device.
        precision: one of the three.
        compiled: compile what is run.
        accelerator: of the process.
    """

    def __init__(self, trainee: Trainee, precision: str, *, compiled: bool, accelerator: Accelerator) -> None:
        self._accelerator, self._precision = accelerator, precision
        copied = copy.deepcopy(trainee).bfloat16() if precision == "bf16-copy" else trainee
        self._distributed = accelerator.prepare_model(copied)
        self._run = torch.compile(self._distributed) if compiled else self._distributed
        pairs = zip(trainee.parameters(), copied.parameters(), strict=True)
        trained = [(master, low) for master, low in pairs if master.requires_grad]
        self.masters: list[Tensor] = [master for master, _ in trained]
        self._copies: list[Tensor] = [low for _, low in trained] if copied is not trainee else []

    def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `Trainee`, with the prediction in float32."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self._precision == "bf16"):
            prediction, projected = self._run(x.bfloat16() if self._copies else x, t, y)
        return prediction.float(), projected

    def accumulating(self, more: bool) -> AbstractContextManager[None]:
        """Within it a backward pass leaves the averaging over processes to a later one, if there is `more` to come."""
        return self._accelerator.no_sync(self._distributed) if more else nullcontext()

    def collect_gradients(self) -> None:
        """Give the gradients to the float32 weights, after the last backward pass of a step."""
        for master, low in zip(self.masters, self._copies, strict=False):
            assert low.grad is not None
            master.grad = low.grad.float()
            low.grad = None

    @torch.no_grad()
    def refresh(self) -> None:
        """Follow the float32 weights, and forget their gradients, after a step."""
        if self._copies:
            torch._foreach_copy_(self._copies, self.masters)
        for master in self.masters:
            master.grad = None
