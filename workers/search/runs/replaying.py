"""Runs that are brought to where their log ends."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.job import Extension, Round
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.search.runs.accounts import WithAccounts


class Replayed(WithAccounts, ABC):
    """A run that can take its rounds from a log."""

    def replay(self, rounds: Iterable[Round | LoggedRound], extensions: Sequence[Extension] = ()) -> None:
        """Bring a fresh run to where the log ends, extended where the job was.

        Raises:
            SearchError: the log has a gap, or what it says is not what this run would do.
        """
        for logged in rounds:
            self.replay_one(logged, extensions)
        self.extend_where_due(extensions)

    def replay_one(self, logged: Round | LoggedRound, extensions: Sequence[Extension] = ()) -> None:
        """Take one round of the log; see `replay`."""
        self.extend_where_due(extensions)
        if logged.round != self.rounds:
            raise SearchError(f"the log has round {logged.round} where {self.rounds} was due")
        self._take_logged(logged)

    def extend_where_due(self, extensions: Sequence[Extension]) -> None:
        """Extend the run if the job was extended after so many rounds."""
        for extension in extensions:
            if extension.after_round == self.rounds:
                self.extend(extension.nfe)

    @abstractmethod
    def extend(self, nfe: int) -> None:
        """Let the run spend `nfe` more."""

    @abstractmethod
    def _take_logged(self, logged: Round | LoggedRound) -> None:
        """Take the round that is due."""
