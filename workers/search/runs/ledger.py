"""What a run has logged, as far as its result vouches for it."""

from __future__ import annotations

from sitsearch.workers.jobs.fingerprint import Origin, differing
from sitsearch.workers.jobs.job import LogDigest
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.merkle import MerkleTree


class Ledger:
    """The tree hash of a log, and what made its rounds.

    Attributes:
        origins: each once, in the order in which it came to be.
    """

    def __init__(self) -> None:
        self._tree = MerkleTree()
        self._last: Origin | None = None
        self.origins: tuple[Origin, ...] = ()

    def fresh(self, origin: Origin | None) -> Origin | None:
        """What the next round's entry is to say of its origin: nothing, if that is as before."""
        return None if origin == self._last else origin

    def add(self, entry: LoggedRound) -> None:
        """A round was logged, or is in the log."""
        self._tree.append(entry.text.encode())
        if entry.origin is not None:
            self._last = entry.origin
            if entry.origin not in self.origins:
                self.origins = (*self.origins, entry.origin)

    @property
    def digest(self) -> LogDigest | None:
        """Of the log so far; None of an empty one."""
        return LogDigest(root=self._tree.root, rounds=self._tree.size) if self._tree.size else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """That rounds had different origins, and in what those differ."""
        found = differing(self.origins)
        return (f"rounds of this search were made in different ways: {'; '.join(found)}",) if found else ()
