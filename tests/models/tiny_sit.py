"""A small SiT with lively weights, and files of it in the formats that checkpoints are published in."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from sitsearch.models.sit import SiT, SiTConfig

TINY = SiTConfig(
    input_size=8, patch_size=2, in_channels=4, hidden_size=64, depth=2, num_heads=1, num_classes=5, learn_sigma=True
)


def tiny_sit(config: SiTConfig = TINY, *, seed: int = 0) -> SiT:
    """A SiT whose output depends on everything: the published initialisation gives zeros."""
    torch.manual_seed(seed)
    net = SiT(config)
    for parameter in net.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(std=0.05)
    return net.eval()


def train_checkpoint(net: SiT, ema: SiT) -> dict[str, object]:
    """What SiT's `train.py` saves: network, EMA, optimiser and command line."""
    moments = {
        number: {"step": torch.tensor(7.0), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        for number, p in enumerate(net.parameters())
    }
    group = {"lr": 1e-4, "betas": (0.9, 0.999), "eps": 1e-8, "foreach": None, "params": list(moments)}
    return {
        "model": net.state_dict(),
        "ema": ema.state_dict(),
        "opt": {"state": moments, "param_groups": [group]},
        "args": Namespace(model="SiT-XL/2", image_size=256, lr=1e-4, wandb=False, ckpt=None),
    }


def save_sharded(state: dict[str, Tensor], folder: Path, *, shards: int = 3, stem: str = "model") -> Path:
    """Safetensors in shards with their index, as Hugging Face libraries write them; returns the index."""
    folder.mkdir(parents=True, exist_ok=True)
    weight_map: dict[str, str] = {}
    for number in range(shards):
        part = dict(list(state.items())[number::shards])
        name = f"{stem}-{number + 1:05d}-of-{shards:05d}.safetensors"
        save_file({key: tensor.contiguous() for key, tensor in part.items()}, folder / name, {"format": "pt"})
        weight_map |= dict.fromkeys(part, name)
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    index = folder / f"{stem}.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": weight_map}))
    return index
