"""A file from any HTTP server, resumed where it broke off.

It arrives as `NAME.part`, with `NAME.part.json` beside it saying which version of which address that is. tenacity says
when to ask again. A downloader such as pooch begins anew after every break, which gigabytes of weights cannot afford.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import BinaryIO

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sitsearch.models.card_files import RemoteFile
from sitsearch.models.errors import DownloadFailed
from sitsearch.models.fetching import Progress, check_offer

#: Tries in a row that may bring no new byte before a download is given up.
ATTEMPTS = 5

#: Seconds: to connect, and of silence within an answer.
TIMEOUT = httpx.Timeout(30.0, connect=10.0)

#: Longest wait between two tries, in seconds, whatever a server's `Retry-After` asks for.
LONGEST_PAUSE = 60.0

#: Answers after which the same request may succeed later.
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})


class _TryAgain(Exception):
    """A request brought no new byte; another may, `pause` seconds from now."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def fetch(
    file: RemoteFile, part: Path, out: BinaryIO, client: httpx.Client, progress: Progress | None, pause: float
) -> None:
    """Request the file until the part is whole.

    What the part holds is continued by a Range request (RFC 9110, section 14) if the file is known to be still the
    same: by its ETag (`If-Range`), or because a checksum is pinned. A server that sends it all again is listened to.

    Args:
        file: its address, and its size and SHA-256 where known.
        part: path of the part.
        out: the part, open to append.
        client: makes the requests.
        progress: told of each piece.
        pause: seconds before the second try in a row that brings nothing; it doubles with each further one.

    Raises:
        DownloadFailed: the server refuses or stays away, or sends a web page or another size; or the disk is full.
    """
    longer = wait_exponential(multiplier=pause, max=LONGEST_PAUSE)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.pause if isinstance(error, _TryAgain) else 0.0
        return min(max(asked, longer(state)), LONGEST_PAUSE)

    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS), wait=wait, retry=retry_if_exception_type(_TryAgain), reraise=True
    )
    try:
        # a request that brought new bytes, but not all of them, returns: the count of tries starts anew
        while not retrying(_request, file, part, out, client, progress):
            pass
    except (httpx.UnsupportedProtocol, httpx.TooManyRedirects, httpx.InvalidURL) as error:
        raise DownloadFailed(f"cannot fetch {file.address}: {error}") from error
    except _TryAgain as error:
        raise DownloadFailed(
            f"cannot fetch {file.address}: {error}; what arrived is kept in {part}, and the next try goes on from there"
        ) from error


def note_of(part: Path) -> Path:
    """The note, in JSON, that says which version of which address the part is of."""
    return part.with_name(f"{part.name}.json")


def _request(file: RemoteFile, part: Path, out: BinaryIO, client: httpx.Client, progress: Progress | None) -> bool:
    """One request, whose answer is appended to the part.

    Returns:
        Whether the part is whole. If not, it has at least grown.
    """
    before, etag = out.seek(0, os.SEEK_END), _read_etag(part, file.address)
    headers = {"Accept-Encoding": "identity"}  # a range of a compressed answer would be of other bytes
    if before and (etag or file.sha256):
        headers |= {"Range": f"bytes={before}-"} | ({"If-Range": etag} if etag else {})
    try:
        with client.stream("GET", file.address, headers=headers) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{before}" and file.size in (None, before):
                    return True
                out.truncate(0)
                raise _TryAgain("the file has become shorter than what was at hand of it")
            _refuse(file, answer)
            have, total = _place(answer, before, etag, out)
            check_offer(file, part.parent, total, have)
            _write_etag(part, file.address, answer.headers.get("ETag", ""))
            # pieces as they come: gathered into larger ones, the last would be lost with the connection
            for chunk in answer.iter_raw():
                out.write(chunk)
                have += len(chunk)
                if progress is not None:
                    progress(file, have, total)
        out.flush()
        expected = file.size if total is None else total
        if expected is None or have == expected:
            return True
        if have > expected:
            out.truncate(0)
            raise DownloadFailed(f"{file.address} sends more than the {expected} bytes that the card says")
        broken = f"{have} of {expected} bytes arrived"
    except httpx.UnsupportedProtocol:  # a redirect that no later try would follow either
        raise
    except httpx.TransportError as error:
        broken = str(error) or type(error).__name__
    if out.seek(0, os.SEEK_END) > before:
        return False
    raise _TryAgain(broken)


def _refuse(file: RemoteFile, answer: httpx.Response) -> None:
    """Raise unless the answer holds the file, or a part of it."""
    if answer.status_code in TRANSIENT:
        after = answer.headers.get("Retry-After", "")
        raise _TryAgain(f"the server answered {answer.status_code}", float(after) if after.isdecimal() else 0.0)
    if answer.status_code not in (200, 206):
        raise DownloadFailed(f"{file.address} answered {answer.status_code} {answer.reason_phrase}")
    if answer.headers.get("Content-Type", "").startswith("text/html"):
        raise DownloadFailed(f"{file.address} answered with a web page, not with the file")


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


def _write_etag(part: Path, address: str, etag: str) -> None:
    """Note which version the part is of. A weak ETag does not promise the same bytes, and is of no use here."""
    note_of(part).write_text(json.dumps({"url": address, "etag": "" if etag.startswith("W/") else etag}))


def _read_etag(part: Path, address: str) -> str:
    """The ETag of the part; empty if it has none, or is of another address."""
    try:
        note = json.loads(note_of(part).read_text())
        return str(note["etag"]) if note["url"] == address else ""
    except (OSError, ValueError, KeyError, TypeError):
        return ""
