"""Runs that are brought to where their log ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.fingerprint import Origin
from sitsearch.workers.jobs.job import Candidate, Extension, Round
from sitsearch.workers.jobs.logged import LoggedRound, logged
from sitsearch.workers.search.runs.accounts import WithAccounts
from sitsearch.workers.search.runs.ledger import Ledger


class Replayed(WithAccounts, ABC):
    """A run that writes a log, and can take its rounds from one.

    Attributes:
        ledger: what was logged.
    """

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._told: tuple[Candidate, ...] = ()
        self._compared: tuple[dict[str, float], ...] = ()

    def seal(self, origin: Origin | None = None) -> LoggedRound:
        """The last round that was told, for the log; once a round, after its audit.

        Args:
            origin: what made it; None is what made the round before.
        """
        sealed = logged(self.log().model_copy(update={"origin": self.ledger.fresh(origin)}))
        self.ledger.add(sealed)
        return sealed

    def replay(self, rounds: Iterable[Round | LoggedRound], extensions: Sequence[Extension] = ()) -> None:
        """Bring a fresh run to where the log ends, extended where the job was.

        Raises:
            SearchError: the log has a gap, or what it says is not what this run would do.
        """
        for entry in rounds:
            self.replay_one(entry, extensions)
        self.extend_where_due(extensions)

    def replay_one(self, entry: Round | LoggedRound, extensions: Sequence[Extension] = ()) -> None:
        """Take one round of the log; see `replay`."""
        self.extend_where_due(extensions)
        if entry.round != self.rounds:
            raise SearchError(f"the log has round {entry.round} where {self.rounds} was due")
        self._take_logged(entry)
        self.ledger.add(logged(entry) if isinstance(entry, Round) else entry)

    def extend_where_due(self, extensions: Sequence[Extension]) -> None:
        """Extend the run if the job was extended after so many rounds."""
        for extension in extensions:
            if extension.after_round == self.rounds:
                self.extend(extension.nfe)

    @abstractmethod
    def extend(self, nfe: int) -> None:
        """Let the run spend `nfe` more."""

    @abstractmethod
    def log(self) -> Round:
        """The last round that was told."""

    @abstractmethod
    def _take_logged(self, entry: Round | LoggedRound) -> None:
        """Take the round that is due."""
