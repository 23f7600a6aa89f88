"""What can be loaded, by the names of the cards: generators and verifiers.

A card with a `kind` describes a verifier, any other a generator (`sitsearch.models.model_card`). Where cards and
weights lie is said in `sitsearch.models.card_files`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sitsearch.models.autoencoder import downsampling, load_autoencoder
from sitsearch.models.card_files import CARDS, ROOT, CardFile, known_cards, read_card
from sitsearch.models.checksums import check_sha256
from sitsearch.models.errors import BadCard, BadWeights, UnknownCard
from sitsearch.models.generator import Decoder, Generator, SiTGenerator
from sitsearch.models.loading.checkpoint import is_pickle
from sitsearch.models.loading.sit import load_sit
from sitsearch.models.model_card import AutoencoderTable, ModelCard, SiTTable, model_card
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.registry import VERIFIER_KINDS, build_verifier, stands_alone, title_of

__all__ = [
    "CARDS",
    "ROOT",
    "ModelCard",
    "VerifierCard",
    "known_cards",
    "load_generator",
    "load_verifier",
    "load_weights",
    "model_card",
    "verifier_card",
]


@dataclass(frozen=True)
class VerifierCard:
    """A verifier's card.

    Attributes:
        file: the card's file, and where its weights are; None for a kind that stands alone.
        name: by which requests ask for it.
        title: one line for people.
        kind: its class, see `sitsearch.models.verifiers.registry`.
        weights: file or folder, whether or not it is there; None for a kind without.
        models: names of the models whose images it can score; empty: of all.
        needs: what it needs beyond the images.
        range: the least and the greatest score.
        options: the arguments of its kind's class.
    """

    file: CardFile | None
    name: str
    title: str
    kind: str
    weights: Path | None
    models: tuple[str, ...]
    needs: tuple[str, ...]
    range: tuple[float, float]
    options: dict[str, Any]


def verifier_card(name: str) -> VerifierCard:
    """The verifier card `name`; a kind that needs neither weights nor options is its own card.

    Raises:
        UnknownCard: there is none, or it is a model's.
        BadCard: it lacks one of `title`, `models`, `needs` and `range`.
        PluginError, MissingLibrary: see `VERIFIER_KINDS`.
    """
    if name not in known_cards() and name in VERIFIER_KINDS and stands_alone(name):
        kind = VERIFIER_KINDS[name]
        return VerifierCard(None, name, title_of(name), name, None, (), tuple(sorted(kind.needs)), kind.range, {})
    file = read_card(name)
    raw = dict(file.table)
    if "kind" not in raw:
        raise UnknownCard(f"{name!r} is a model's card, not a verifier's")
    try:
        weights = raw.pop("weights", None)
        low, high = raw.pop("range")
        return VerifierCard(
            file=file,
            name=raw.pop("name"),
            title=raw.pop("title"),
            kind=raw.pop("kind"),
            weights=None if weights is None else file.base / Path(weights).expanduser(),
            models=tuple(raw.pop("models")),
            needs=tuple(raw.pop("needs")),
            range=(low, high),
            options=raw,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadCard(f"the card {file.path}: {error!r}") from error


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

    Every file whose SHA-256 is known is checked before it is read. A checkpoint that is not safetensors is read only if
    its SHA-256 is known: from its card, or from the download that brought it.

    Args:
        name: of a model card.
        device: where network and decoder run.
        dtype: the network's precision; a latent model's decoder stays in float32.

    Raises:
        UnknownCard: no such model card.
        BadCard: see `model_card`.
        BadWeights: its weights are missing, refused, or do not fit; `ChecksumMismatch` among them.
        MissingLibrary: see `load_autoencoder`.
    """
    card = model_card(name)
    network = card.table.network
    path = card.file.locate(network.weights)
    if isinstance(network, SiTTable):
        _check_pickle(card.file, path, network.sha256)
    card.file.verify()
    if not isinstance(network, SiTTable):
        from sitsearch.models.text_to_image import load_text_to_image

        try:
            return load_text_to_image(path, device=device, dtype=dtype, **network.options)
        except ValueError as error:
            raise error if isinstance(error, BadWeights) else BadCard(f"the card {card.file.path}: {error}") from error
    return SiTGenerator(
        load_sit(path, network.shape, device=device, dtype=dtype),
        interpolant=card.interpolant,
        prediction=card.prediction,
        guided_channels=card.guided_channels,
        decoder=_decoder(card, device),
    )


def _check_pickle(file: CardFile, path: Path, pinned: str | None) -> None:
    """Refuse a checkpoint that would be unpickled, unless it is known to be the one that was meant."""
    if pinned is not None:
        check_sha256(path, pinned)
    elif is_pickle(path) and path not in file.checksums():
        fetch = f"fetch it with `sitsearch models pull {file.name}`, " if file.files else ""
        raise BadWeights(
            f"{path} is not safetensors, and is read only if its SHA-256 is known: {fetch}give `sha256` in "
            f"{file.path}, or convert it"
        )


def _decoder(card: ModelCard, device: str) -> Decoder | None:
    table = card.table.decoder
    if not isinstance(table, AutoencoderTable):
        return None
    folder = card.file.locate(table.weights)
    if (found := downsampling(folder)) != table.downsampling:
        raise BadWeights(f"the autoencoder in {folder} has {found} pixels a cell, the card says {table.downsampling}")
    return load_autoencoder(folder, device=device, batch=table.batch, tiling=table.tiling)


def load_verifier(name: str, *, device: str = "cpu") -> Verifier:
    """The verifier of card `name`.

    Raises:
        UnknownCard: no such verifier card.
        BadCard: see `verifier_card`.
        BadWeights: its weights are missing, refused, or do not fit; `ChecksumMismatch` among them.
        ModelError: see `build_verifier`.
    """
    card = verifier_card(name)
    if card.file is not None:
        if card.weights is not None:
            card.file.locate(str(card.weights))
        card.file.verify()
    try:
        return build_verifier(
            card.kind,
            card.weights,
            device=device,
            options=card.options,
            root=ROOT if card.file is None else card.file.base,
            load_generator=load_generator,
        )
    except RuntimeError as error:
        raise BadWeights(f"{card.weights} does not fit verifier card {name!r}: {error}") from error
