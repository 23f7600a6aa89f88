"""Model cards and verifier cards: what can be loaded, read from the TOML files in `models/cards/`.

A card with a `[network]` table describes a generator, one with a `kind` a verifier.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from models.errors import BadWeights, UnknownCard
from models.generator import Generator
from models.guidance import Channels
from models.sit import SiT, SiTConfig
from models.verifiers.base import Verifier
from models.verifiers.registry import VERIFIER_KINDS

ROOT = Path(__file__).parent
CARDS = ROOT / "cards"


@dataclass(frozen=True)
class ModelCard:
    """A generator's card.

    Attributes:
        name: by which requests ask for it.
        title: one line for people.
        license: SPDX identifier of the weights' licence.
        weights: the safetensors file.
        network: the network's shape.
        interpolant: `Linear`, `GVP` or `VP`.
        prediction: what the network predicts: `velocity`, `score` or `noise`.
        guided_channels: `all`, or `first3` as the published checkpoints were sampled.
        classes: class names, by index.
        template: makes a text of a class name, for verifiers that read text.
        sampler: default method, steps and guidance scale.
    """

    name: str
    title: str
    license: str
    weights: Path
    network: SiTConfig
    interpolant: str
    prediction: str
    guided_channels: Channels
    classes: tuple[str, ...]
    template: str
    sampler: dict[str, Any]


@dataclass(frozen=True)
class VerifierCard:
    """A verifier's card; `options` are the arguments of its kind's class."""

    name: str
    title: str
    kind: str
    weights: Path
    models: tuple[str, ...]
    needs: tuple[str, ...]
    range: tuple[float, float]
    options: dict[str, Any]


def _read(name: str) -> dict[str, Any]:
    path = CARDS / f"{name}.toml"
    known = sorted(p.stem for p in CARDS.glob("*.toml"))
    if name not in known:
        raise UnknownCard(f"no card named {name!r}; there are {', '.join(known)}")
    return tomllib.loads(path.read_text())


def model_card(name: str) -> ModelCard:
    """The generator card `name`.

    Raises:
        UnknownCard: there is none, or it is a verifier's.
    """
    raw = _read(name)
    if "network" not in raw:
        raise UnknownCard(f"{name!r} is a verifier's card, not a model's")
    network = dict(raw["network"])
    network.pop("kind")
    weights = ROOT / network.pop("weights")
    return ModelCard(
        name=raw["name"],
        title=raw["title"],
        license=raw["license"],
        weights=weights,
        network=SiTConfig(**network),
        interpolant=raw["flow"]["interpolant"],
        prediction=raw["flow"]["prediction"],
        guided_channels=raw["flow"]["guided_channels"],
        classes=tuple(raw["classes"]["characters"]),
        template=raw["classes"]["template"],
        sampler=raw["sampler"],
    )


def verifier_card(name: str) -> VerifierCard:
    """The verifier card `name`.

    Raises:
        UnknownCard: there is none, or it is a model's.
    """
    raw = _read(name)
    if "kind" not in raw:
        raise UnknownCard(f"{name!r} is a model's card, not a verifier's")
    low, high = raw.pop("range")
    return VerifierCard(
        name=raw.pop("name"),
        title=raw.pop("title"),
        kind=raw.pop("kind"),
        weights=ROOT / raw.pop("weights"),
        models=tuple(raw.pop("models")),
        needs=tuple(raw.pop("needs")),
        range=(low, high),
        options=raw,
    )


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, on the CPU.

    Raises:
        BadWeights: the file is missing or is not a safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadWeights(f"cannot read the weights {path}: {error}") from error


def load_generator(name: str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Generator:
    """The generator of card `name`, ready to sample.

    Raises:
        UnknownCard: no such model card.
        BadWeights: its weights are missing or do not fit the network.
    """
    card = model_card(name)
    net = SiT(card.network)
    try:
        net.load_state_dict(load_weights(card.weights))
    except RuntimeError as error:
        raise BadWeights(f"{card.weights} does not fit the network of card {name!r}: {error}") from error
    return Generator(
        net.to(device=device, dtype=dtype).eval().requires_grad_(False),
        interpolant=card.interpolant,
        prediction=card.prediction,
        guided_channels=card.guided_channels,
    )


def load_verifier(name: str, *, device: str = "cpu") -> Verifier:
    """The verifier of card `name`.

    Raises:
        UnknownCard: no such verifier card.
        BadWeights: its weights are missing or do not fit.
    """
    card = verifier_card(name)
    try:
        return VERIFIER_KINDS[card.kind](load_weights(card.weights), device=device, **card.options)
    except RuntimeError as error:
        raise BadWeights(f"{card.weights} does not fit verifier card {name!r}: {error}") from error
