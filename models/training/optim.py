"""Optimisers and the schedule of their rate."""

from __future__ import annotations

from torch import nn
from torch.optim import AdamW, Muon, Optimizer

from sitsearch.models.training.config import OptimizerSection
from sitsearch.models.training.trainee import Trainee


def make_optimizers(model: Trainee, config: OptimizerSection) -> list[Optimizer]:
    """One optimiser, or two: Muon takes the blocks' attention and MLP matrices, AdamW everything else.

    Muon (Jordan et al. 2024) orthogonalises a matrix's momentum; its update is scaled to AdamW's size, so that one
    rate suits both (Liu et al. 2025, arXiv 2502.16982, section 2.2).
    """
    matrices: list[nn.Parameter] = []
    if config.kind == "muon":
        matrices = [p for name, p in model.net.blocks.named_parameters() if p.ndim == 2 and "adaLN" not in name]
    chosen = set(map(id, matrices))
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
    adamw = AdamW(rest, lr=config.lr, weight_decay=config.weight_decay, betas=config.betas, fused=True)
    if not matrices:
        return [adamw]
    muon = Muon(matrices, lr=config.lr, weight_decay=config.muon_weight_decay, adjust_lr_fn="match_rms_adamw")
    return [muon, adamw]


def rate(step: int, config: OptimizerSection, steps: int) -> float:
    """The factor of the learning rate at step `step` of `steps`: a linear rise, 1, and a linear fall to (almost) 0."""
    rise = (step + 1) / config.warmup if step < config.warmup else 1.0
    left = steps - step
    return rise * (left / config.decay if left < config.decay else 1.0)
