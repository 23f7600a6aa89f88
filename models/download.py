"""Fetching published weights: resumed where the connection broke, checked, and put in place in one step.

`fetching/` brings the bytes. A file becomes `NAME` only once it is whole and its SHA-256 is the card's. Nothing here
imports torch.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from sitsearch.models.card_files import CardFile, HubFile, RemoteFile, read_card
from sitsearch.models.checksums import read_sums, sha256_of, write_sum
from sitsearch.models.errors import BadCard, ChecksumMismatch, DownloadFailed
from sitsearch.models.fetching import Progress, hub, plain


@dataclass(frozen=True)
class Pulled:
    """A file of a card, in place.

    Attributes:
        file: what the card says of it.
        path: where it is.
        sha256: of what is there.
        fetched: it was downloaded now; else it was already there.
    """

    file: RemoteFile
    path: Path
    sha256: str
    fetched: bool

    @property
    def pinned(self) -> bool:
        """Whether the card says what its SHA-256 must be; if not, nothing vouches for what the server sent."""
        return bool(self.file.sha256)


def pull(name: str, to: Path | None = None, *, progress: Progress | None = None) -> list[Pulled]:
    """Fetch the weights of card `name` into `TO/NAME`; files that are there and right are left alone.

    The SHA-256 of every file is noted in `TO/NAME/SHA256SUMS`, against which later loads are checked.

    Args:
        name: of a model's or a verifier's card.
        to: stands in for `weights_dir()`.
        progress: told of each piece.

    Raises:
        UnknownCard: no such card.
        BadCard: it does not say where its weights come from.
        ChecksumMismatch, DownloadFailed: see `download`.
    """
    card = read_card(name, weights=to)
    if not card.files:
        raise BadCard(f"there is nothing to fetch for {name!r}: its card has no [[files]]")
    with httpx.Client(follow_redirects=True, timeout=plain.TIMEOUT) as client:
        return [_pull_file(card, file, client, progress) for file in card.files]


def _pull_file(card: CardFile, file: RemoteFile, client: httpx.Client, progress: Progress | None) -> Pulled:
    path = card.base / file.path
    wanted = file.sha256 or read_sums(card.base).get(file.path, "")
    digest = sha256_of(path) if path.is_file() else None
    fetched = digest is None or (bool(wanted) and digest != wanted)
    if fetched:
        digest = download(file, path, client=client, progress=progress)
    assert digest is not None
    write_sum(card.base, file.path, digest)
    return Pulled(file, path, digest, fetched)


def download(
    file: RemoteFile, path: Path, *, client: httpx.Client, progress: Progress | None = None, pause: float = 1.0
) -> str:
    """Fetch one file to `path`, which others see only when it is whole and right.

    Args:
        file: its address, and its size and SHA-256 where known.
        path: where it goes; its folder is made.
        client: makes the requests for a file that is on no hub.
        progress: told of each piece.
        pause: see `plain.fetch`.

    Returns:
        The SHA-256 of the file.

    Raises:
        ChecksumMismatch: it is not what the card pins, or, without a pin, what the hub names; it is thrown away.
        DownloadFailed: the server refuses or stays away, sends a web page or another size, the disk is full, or another
            process is fetching the same file.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(part) as out:
            if file.hub is not None:
                return _from_hub(file, file.hub, part, path, progress)
            plain.fetch(file, part, out, client, progress, pause)
            try:
                return _place(file, part, path, file.sha256)
            finally:
                plain.note_of(part).unlink(missing_ok=True)
    except OSError as error:
        raise DownloadFailed(f"cannot write {path}: {error}") from error


def _from_hub(file: RemoteFile, at: HubFile, part: Path, path: Path, progress: Progress | None) -> str:
    """Fetch a file of a hub beside `path`, on the same disk, and move it there. The part serves as the lock only."""
    folder = path.with_name(f"{path.name}.hub")
    shutil.rmtree(folder, ignore_errors=True)  # a killed process leaves it, and the disk may be short
    try:
        arrived, published = hub.fetch(file, at, folder, progress)
        return _place(file, arrived, path, file.sha256 or published)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        part.unlink(missing_ok=True)


def _place(file: RemoteFile, arrived: Path, path: Path, expected: str) -> str:
    """Move what arrived to `path` if its SHA-256, which is returned, is the expected one; empty: any will do."""
    digest = sha256_of(arrived)
    if expected and digest != expected:
        arrived.unlink()
        names = "is pinned" if file.sha256 else "is what the hub names"
        raise ChecksumMismatch(
            f"{file.address} gave a file with the SHA-256 {digest}, but {expected} {names}; it is thrown away"
        )
    with arrived.open("rb") as whole:
        os.fsync(whole.fileno())  # else a crash of the machine may leave an empty file of the right name
    arrived.replace(path)
    return digest


@contextmanager
def _alone(part: Path) -> Iterator[BinaryIO]:
    """The part, open to go on with, while no other process has it open so."""
    with part.open("a+b") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DownloadFailed(f"another process is fetching {part.with_suffix('')}") from error
        if not part.exists() or not os.path.samestat(part.stat(), os.fstat(out.fileno())):
            # the other was done between our opening the part and locking it: it is the finished file by now
            raise DownloadFailed(f"another process has just fetched {part.with_suffix('')}")
        yield out
