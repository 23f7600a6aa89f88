"""SHA-256 of files, and the list of them that a download leaves beside what it fetched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from sitsearch.models.errors import ChecksumMismatch

#: Name of the list, in the form that `sha256sum --check` reads.
SUMS = "SHA256SUMS"


def sha256_of(path: Path) -> str:
    """The file's SHA-256, 64 lower-case hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Refuse a file that is not the one `expected` names.

    Raises:
        ChecksumMismatch: the SHA-256 is another; the message has both.
        OSError: the file cannot be read.
    """
    found = sha256_of(path)
    if found != expected.lower():
        raise ChecksumMismatch(f"{path} is refused: its SHA-256 is {found}, but {expected.lower()} was expected")


def read_sums(folder: Path) -> dict[str, str]:
    """Path (relative, with `/`) to SHA-256 of the files that the folder's list names; empty without a list."""
    try:
        lines = (folder / SUMS).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {path: digest for digest, _, path in (line.partition("  ") for line in lines) if path}


def write_sum(folder: Path, path: str, digest: str) -> None:
    """Add a file to the folder's list, or change what the list says of it; readers see the old list or the new one."""
    sums = read_sums(folder) | {path: digest}
    draft = folder / f".{SUMS}.{os.getpid()}"
    draft.write_text("".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))
    draft.replace(folder / SUMS)
