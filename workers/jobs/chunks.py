"""Text chunks of PNG files, read and written without touching the pixels (PNG specification, section 11.3.3)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND"


def with_text(png: bytes, keyword: str, text: str) -> bytes:
    """The file with one text chunk more, before its end.

    Args:
        png: a PNG file.
        keyword: 1 to 79 characters of Latin-1.
        text: of ASCII.

    Raises:
        ValueError: it is not a PNG file.
    """
    end = next((start for start, kind, _ in _chunks(png) if kind == _END), None)
    if end is None:
        raise ValueError("the PNG file has no end")
    body = b"tEXt" + keyword.encode("latin-1") + b"\0" + text.encode("ascii")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return png[:end] + chunk + png[end:]


def texts(png: bytes) -> dict[str, str]:
    """Keyword to text of the file's uncompressed text chunks; of two with one keyword the last.

    Raises:
        ValueError: it is not a PNG file.
    """
    found = {}
    for _, kind, body in _chunks(png):
        if kind == b"tEXt":
            keyword, _, text = body.partition(b"\0")
            found[keyword.decode("latin-1")] = text.decode("latin-1")
    return found


def _chunks(png: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Where each chunk begins, its kind and its body."""
    if not png.startswith(SIGNATURE):
        raise ValueError("this is not a PNG file")
    start = len(SIGNATURE)
    while start + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, start)
        yield start, png[start + 4 : start + 8], png[start + 8 : start + 8 + length]
        start += 12 + length
