"""What can be loaded, by the names of the cards: generators and verifiers.

A card with a `kind` describes a verifier (`sitsearch.models.verifier_card`), any other a generator
(`sitsearch.models.model_card`). Where cards and weights lie is said in `sitsearch.models.card_files`.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch

from sitsearch.models.autoencoder import downsampling, load_autoencoder
from sitsearch.models.card_files import CARDS, ROOT, known_cards
from sitsearch.models.errors import BadCard, BadWeights
from sitsearch.models.generator import Decoder, Generator, Pixels, SiTGenerator
from sitsearch.models.loading.pickles import check_pickle, files_of
from sitsearch.models.loading.sit import load_sit
from sitsearch.models.model_card import AutoencoderTable, ModelCard, SiTTable, model_card
from sitsearch.models.verifier_card import VerifierCard, verifier_card
from sitsearch.models.verifiers.base import Verifier
from sitsearch.models.verifiers.registry import build_verifier

__all__ = [
    "CARDS",
    "ROOT",
    "ModelCard",
    "VerifierCard",
    "known_cards",
    "load_decoder",
    "load_generator",
    "load_verifier",
    "model_card",
    "verifier_card",
]


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
    with files_of(card.file):
        if isinstance(network, SiTTable):
            check_pickle(path, network.sha256)
            sit = SiTGenerator(
                load_sit(path, network.shape, device=device, dtype=dtype),
                interpolant=card.interpolant,
                prediction=card.prediction,
                guided_channels=card.guided_channels,
                decoder=_decoder(card, device),
            )
            sit.digest = card.file.digest()
            return sit
    from sitsearch.models.text_to_image import load_text_to_image

    try:
        pipeline = load_text_to_image(path, device=device, dtype=dtype, **network.options)
    except ValueError as error:
        raise error if isinstance(error, BadWeights) else BadCard(f"the card {card.file.path}: {error}") from error
    pipeline.digest = card.file.digest()
    return pipeline


def load_decoder(name: str, *, device: str = "cpu") -> Decoder:
    """The way from states to pixels of card `name`, without its network.

    Raises:
        UnknownCard, BadCard, BadWeights: as `load_generator`.
    """
    card = model_card(name)
    with files_of(card.file):
        if isinstance(card.table.network, SiTTable):
            return _decoder(card, device) or Pixels()
    return load_generator(name, device=device).decoder  # a pipeline's is part of it


def _decoder(card: ModelCard, device: str) -> Decoder | None:
    table = card.table.decoder
    if not isinstance(table, AutoencoderTable):
        return None
    folder = card.file.locate(table.weights)
    if (found := downsampling(folder)) != table.downsampling:
        raise BadWeights(f"the autoencoder in {folder} has {found} pixels a cell, the card says {table.downsampling}")
    return load_autoencoder(folder, device=device, batch=table.batch, tiling=table.tiling)


def load_verifier(name: str, *, device: str = "cpu") -> Verifier:
    """The verifier of card `name`; its files are checked, and a checkpoint is read, as by `load_generator`.

    Raises:
        UnknownCard: no such verifier card.
        BadCard: see `verifier_card`; or it says another `needs` or `range` than the verifier has.
        BadWeights: its weights are missing, refused, or do not fit; `ChecksumMismatch` among them.
        ModelError: see `build_verifier`.
    """
    card = verifier_card(name)
    if card.file is not None:
        card.file.locate(card.table.weights or "")
    with nullcontext() if card.file is None else files_of(card.file):
        verifier = build_verifier(
            card.kind,
            card.weights,
            device=device,
            options=card.options,
            root=ROOT if card.file is None else card.file.base,
            load_generator=load_generator,
        )
    card.check(verifier)
    if card.file is not None:
        verifier.digest = card.file.digest()
    return verifier
