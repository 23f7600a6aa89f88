"""What a run writes: `state.pt` to go on from, `ema.safetensors` and its model card to sample from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.optim import Optimizer

from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.checkpoint import read_checkpoint
from sitsearch.models.sit import SiT
from sitsearch.models.training.config import TrainingConfig
from sitsearch.models.training.data import TrainingData
from sitsearch.models.training.ema import Ema
from sitsearch.models.training.trainee import Trainee

STATE, WEIGHTS = "state.pt", "ema.safetensors"


def save(
    run: Path, step: int, model: Trainee, ema: Ema, optimizers: Sequence[Optimizer], config: TrainingConfig
) -> None:
    """Write `state.pt` and `ema.safetensors` after `step` steps; a reader finds either the old or the new file."""
    state = {
        "step": step,
        "model": model.state_dict(),
        "ema": ema.net.state_dict(),
        "opts": [optimizer.state_dict() for optimizer in optimizers],
        "config": config.model_dump(mode="json"),
    }
    draft = run / f"{STATE}.tmp"
    torch.save(state, draft)
    draft.rename(run / STATE)
    draft = run / f"{WEIGHTS}.tmp"
    save_file({name: value.contiguous() for name, value in ema.net.state_dict().items()}, draft)
    draft.rename(run / WEIGHTS)


def load(run: Path, model: Trainee, ema: Ema, optimizers: Sequence[Optimizer]) -> tuple[int, dict[str, Any]] | None:
    """Take up the run's state, if it has one: the steps taken, and the settings they were taken with.

    Raises:
        BadWeights: the state cannot be read or is not of this network and these optimisers.
    """
    path = run / STATE
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        ema.net.load_state_dict(state["ema"])
        for optimizer, saved in zip(optimizers, state["opts"], strict=True):
            optimizer.load_state_dict(saved)
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise BadWeights(f"cannot go on from {path}: {error}") from error
    return int(state["step"]), state.get("config", {})


def load_initial(path: Path, net: SiT) -> None:
    """Begin with the weights of a checkpoint (see `read_checkpoint`), in any precision.

    Raises:
        BadWeights: it cannot be read or does not fit the network.
    """
    weights = read_checkpoint(path)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise BadWeights(f"{path} does not fit the network: {error}") from error


def changes(before: dict[str, Any], config: TrainingConfig) -> list[str]:
    """The settings that differ from those of the earlier steps, as `section.field: old -> new`."""
    now = config.model_dump(mode="json")
    found = []
    for section in now:
        old, new = before.get(section) or {}, now[section] or {}
        keys = [key for key in {**old, **new} if old.get(key) != new.get(key)]
        found += [f"{section}.{key}: {old.get(key)} -> {new.get(key)}" for key in keys]
    return found


def write_card(run: Path, config: TrainingConfig, data: TrainingData, net: SiT) -> None:
    """Write the model card NAME.toml beside the weights; `SITSEARCH_CARDS_DIR=RUN` offers the model to the service."""
    card, flow, shape = config.card, config.flow, net.config
    tables: dict[str, dict[str, Any]] = {
        "": {"name": card.name, "title": card.title or card.name, "license": card.license},
        "network": {
            "kind": "sit",
            "weights": WEIGHTS,
            "input_size": shape.input_size,
            "patch_size": shape.patch_size,
            "in_channels": shape.in_channels,
            "hidden_size": shape.hidden_size,
            "depth": shape.depth,
            "num_heads": shape.num_heads,
            "num_classes": shape.num_classes,
            "learn_sigma": shape.learn_sigma,
        },
        "flow": {"interpolant": flow.interpolant, "prediction": flow.prediction, "guided_channels": "all"},
        "decoder": {"kind": "autoencoder_kl", "weights": card.vae} if data.latents else {"kind": "pixels"},
        "classes": {"names": list(data.classes), "template": card.template},
        "sampler": {"method": card.method, "steps": card.steps, "guidance": card.guidance},
    }
    (run / f"{card.name}.toml").write_text("\n".join(_table(name, values) for name, values in tables.items()))


def _table(name: str, values: dict[str, Any]) -> str:
    # A JSON string, number, boolean or list of strings is the same in TOML.
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()]
    return "".join([f"[{name}]\n", *lines] if name else lines)
