"""A Merkle tree that grows at its end: the tree hash of RFC 6962 (section 2.1), with SHA-256.

Who knows the root can be shown any number of entries, and that none of them was changed, added or left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


class MerkleTree:
    """A tree over entries in order; of its nodes only those are held that are not part of a larger whole one.

    Attributes:
        size: number of entries.
    """

    def __init__(self, entries: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._whole: list[bytes] = []  # hashes of the largest complete subtrees, from left to right
        for entry in entries:
            self.append(entry)

    def append(self, entry: bytes) -> None:
        """Add an entry at the end."""
        node, self.size = _hash(b"\x00", entry), self.size + 1
        for _ in range((self.size & -self.size).bit_length() - 1):
            node = _hash(b"\x01", self._whole.pop(), node)
        self._whole.append(node)

    @property
    def root(self) -> str:
        """The tree hash, 64 hexadecimal digits; of no entry that of nothing."""
        if not self._whole:
            return hashlib.sha256().hexdigest()
        *left, node = self._whole
        while left:
            node = _hash(b"\x01", left.pop(), node)
        return node.hex()


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()
