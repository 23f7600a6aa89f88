"""The loop that trains each of the bundled verifiers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def fit(
    net: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    lr: float,
    seed: int,
    matrices: Iterable[nn.Parameter] = (),
    weight_decay: float = 0.05,
    report: int = 100,
    checkpoint: Path | None = None,
) -> None:
    """Minimise `loss`: AdamW, and Muon for `matrices`, both on a one-cycle schedule, with clipped gradients.

    Args:
        net: what is trained, in place.
        loss: draws a batch with the generator it is given and returns the batch's loss.
        steps: how many batches.
        lr: the highest rate.
        seed: of that generator.
        matrices: the 2-D parameters that Muon takes, its update scaled to AdamW's size (arXiv 2502.16982, 2.2).
        weight_decay: of what has more than one dimension.
        report: steps between two lines of progress.
        checkpoint: where the weights so far are written every ten reports.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = list(matrices)
    known = set(map(id, chosen))
    rest = [p for p in net.parameters() if p.requires_grad and id(p) not in known]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in rest if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizers: list[Optimizer] = [AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]
    if chosen:
        optimizers.append(Muon(chosen, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
    schedules = [OneCycleLR(o, lr, total_steps=steps, pct_start=0.15, cycle_momentum=False) for o in optimizers]
    start, total = time.monotonic(), 0.0
    net.train()
    for step in range(1, steps + 1):
        value = loss(generator)
        net.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        total += value.item()
        if step % report == 0:
            print(f"step {step} loss {total / report:.3f} {time.monotonic() - start:.0f} s", flush=True)
            total = 0.0
        if checkpoint is not None and step % (10 * report) == 0:
            save(net, checkpoint)
    net.eval()


def save(net: nn.Module, path: Path) -> None:
    """Write the weights as float16 safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.half() if value.is_floating_point() else value for name, value in net.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, path)
