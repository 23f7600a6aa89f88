"""Fetching published weights: resumed where they broke off, checked, and put in place in one step.

A file arrives as `NAME.part`, with `NAME.part.json` beside it saying which version of the file that is. It becomes
`NAME` only once it is whole and its SHA-256 is the card's. Nothing here imports torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from sitsearch.models.card_files import CardFile, RemoteFile, read_card
from sitsearch.models.checksums import read_sums, sha256_of, write_sum
from sitsearch.models.errors import BadCard, ChecksumMismatch, DownloadFailed

#: Tries in a row that may bring no new byte before a download is given up.
ATTEMPTS = 5

#: Seconds: to connect, and of silence within an answer.
TIMEOUT = httpx.Timeout(30.0, connect=10.0)

#: Longest wait between two tries, in seconds, whatever a server's `Retry-After` asks for.
LONGEST_PAUSE = 60.0

#: Answers after which the same request may succeed later.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})

#: Told of each piece: the file, the bytes at hand, and how many it will be (None: the server does not say).
Progress = Callable[[RemoteFile, int, int | None], None]


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


class _TryAgain(Exception):
    """This try is over; another may go on from what it left."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


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
        ChecksumMismatch: what came is not what the card pins; it is thrown away.
        DownloadFailed: see `download`.
    """
    card = read_card(name, weights=to)
    if not card.files:
        raise BadCard(f"there is nothing to fetch for {name!r}: its card has no [[files]]")
    with httpx.Client(follow_redirects=True, timeout=TIMEOUT) as client:
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

    A part of an earlier try is continued by a Range request (RFC 9110, section 14) if the file is known to be still the
    same: by its ETag (`If-Range`), or because a checksum is pinned. A server that sends it all again is listened to.

    Args:
        file: its address, and its size and SHA-256 where known.
        path: where it goes; its folder is made.
        client: makes the requests.
        progress: told of each piece.
        pause: seconds before the second try in a row that brings nothing; it doubles with each further one.

    Returns:
        The SHA-256 of the file.

    Raises:
        ChecksumMismatch: it is not what the card pins; it is thrown away.
        DownloadFailed: the server refuses or stays away, sends a web page or another size, the disk is full, or another
            process is fetching the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        with _alone(part) as out:
            _fetch(file, part, out, client, progress, pause)
            os.fsync(out.fileno())
            digest = sha256_of(part)
            if file.sha256 and digest != file.sha256:
                _note(part).unlink(missing_ok=True)
                part.unlink()
                raise ChecksumMismatch(
                    f"{file.url} gave a file with the SHA-256 {digest}, but {file.sha256} is pinned; it is thrown away"
                )
            part.replace(path)
            _note(part).unlink(missing_ok=True)
    except OSError as error:
        raise DownloadFailed(f"cannot write {path}: {error}") from error
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


def _fetch(
    file: RemoteFile, part: Path, out: BinaryIO, client: httpx.Client, progress: Progress | None, pause: float
) -> None:
    """Tries until the part is whole."""
    failures = 0
    while True:
        before = out.seek(0, os.SEEK_END)
        try:
            return _try(file, part, out, client, progress)
        except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
            raise DownloadFailed(f"cannot fetch {file.url}: {error}") from error
        except (_TryAgain, httpx.TransportError) as error:
            failures = 0 if out.seek(0, os.SEEK_END) > before else failures + 1
            if failures >= ATTEMPTS:
                raise DownloadFailed(
                    f"cannot fetch {file.url}: {error or type(error).__name__}; what arrived is kept in {part}, and "
                    "the next try goes on from there"
                ) from error
            asked = error.pause if isinstance(error, _TryAgain) else 0.0
            time.sleep(min(max(asked, pause * 2 ** (failures - 1) if failures else 0.0), LONGEST_PAUSE))


def _try(file: RemoteFile, part: Path, out: BinaryIO, client: httpx.Client, progress: Progress | None) -> None:
    """One request, whose answer is appended to the part."""
    have, etag = out.seek(0, os.SEEK_END), _read_etag(part, file.url)
    headers = {"Accept-Encoding": "identity"}  # a range of a compressed answer would be of other bytes
    if have and (etag or file.sha256):
        headers["Range"] = f"bytes={have}-"
        if etag:
            headers["If-Range"] = etag
    with client.stream("GET", file.url, headers=headers) as answer:
        if answer.status_code == 416:
            if re.fullmatch(rf"bytes \*/{have}", answer.headers.get("Content-Range", "")):
                return  # the part was already whole
            out.truncate(0)
            raise _TryAgain("the file has become shorter than what was at hand of it")
        if answer.status_code in TRANSIENT:
            after = answer.headers.get("Retry-After", "")
            raise _TryAgain(f"the server answered {answer.status_code}", float(after) if after.isdecimal() else 0.0)
        if answer.status_code not in (200, 206):
            raise DownloadFailed(f"{file.url} answered {answer.status_code} {answer.reason_phrase}")
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise DownloadFailed(f"{file.url} answered with a web page, not with the file")
        have, total = _place(answer, have, etag, out)
        if file.size is not None and total is not None and total != file.size:
            raise DownloadFailed(f"{file.url} offers {total} bytes; the card says {file.size}")
        _write_etag(part, file.url, answer.headers.get("ETag", ""))
        free = shutil.disk_usage(part.parent).free
        if total is not None and total - have > free:
            raise DownloadFailed(f"{part.parent} has {free} bytes free; {total - have} are needed for {file.path}")
        # pieces as they come: gathered into larger ones, the last would be lost with the connection
        for chunk in answer.iter_raw():
            out.write(chunk)
            have += len(chunk)
            if progress is not None:
                progress(file, have, total)
        out.flush()
    expected = file.size if total is None else total
    if expected is not None and have != expected:
        raise _TryAgain(f"{have} of {expected} bytes arrived")


def _place(answer: httpx.Response, have: int, etag: str, out: BinaryIO) -> tuple[int, int | None]:
    """Where in the part the answer belongs, and the file's size if the server says it."""
    if answer.status_code == 200:  # the whole file: the server knows no ranges, or it is another version by now
        out.truncate(0)
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    range_ = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if range_ is None or int(range_[1]) != have or (etag and answer.headers.get("ETag", etag) != etag):
        out.truncate(0)
        raise _TryAgain("the server sent another range than it was asked for")
    return have, None if range_[2] == "*" else int(range_[2])


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _write_etag(part: Path, url: str, etag: str) -> None:
    """Note which version the part is of. A weak ETag does not promise the same bytes, and is of no use here."""
    _note(part).write_text(json.dumps({"url": url, "etag": "" if etag.startswith("W/") else etag}))


def _read_etag(part: Path, url: str) -> str:
    try:
        note = json.loads(_note(part).read_text())
        return str(note["etag"]) if note["url"] == url else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
