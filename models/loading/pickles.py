"""Which checkpoints that would be unpickled are read: those whose SHA-256 is known.

It is known from the `[[files]]` of the card that is being loaded, from the list that a download left beside them, or
from an option `sha256`. All that reads a checkpoint which a card names asks `check_pickle` first.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from sitsearch.models.card_files import CardFile
from sitsearch.models.checksums import check_sha256, sha256_of
from sitsearch.models.errors import BadWeights
from sitsearch.models.loading.checkpoint import is_pickle

#: The card that is being loaded. Not an argument, for what it pins counts for files that only a verifier's own class
#: knows of: those within a folder, and those of networks inside it.
_card: ContextVar[CardFile | None] = ContextVar("card", default=None)


@contextmanager
def files_of(card: CardFile) -> Iterator[None]:
    """Check every file of a card whose SHA-256 is known; within the block, those may be read.

    Raises:
        ChecksumMismatch, BadWeights: see `CardFile.verify`.
    """
    card.verify()
    before = _card.set(card)
    try:
        yield
    finally:
        _card.reset(before)


def check_pickle(path: Path, sha256: str | None = None) -> None:
    """Refuse a file that would be unpickled, unless it is known to be the one that was meant.

    Args:
        path: as `sitsearch.models.loading.checkpoint.read_checkpoint` takes it; what is not unpickled passes.
        sha256: what its checksum must be, in hexadecimal, whatever kind of file it is.

    Raises:
        ChecksumMismatch: it is not the file that `sha256` names.
        BadWeights: it would be unpickled and nothing says its checksum, or it cannot be read.
    """
    card = _card.get()
    try:
        if sha256 is not None:
            check_sha256(path, sha256)
        elif is_pickle(path) and not (card and path in card.checksums()):
            fetch = f"fetch it with `sitsearch models pull {card.name}`, " if card and card.files else ""
            where = f" in {card.path}" if card else ""
            raise BadWeights(
                f"{path} is not safetensors, and is read only if its SHA-256 is known: {fetch}give `sha256`{where} "
                f"(this file's is {sha256_of(path)}), or convert it"
            )
    except OSError as error:
        raise BadWeights(f"cannot read the weights {path}: {error}") from error
