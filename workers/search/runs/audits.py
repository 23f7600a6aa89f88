"""What the auditors say of a run's best candidates."""

from __future__ import annotations

from collections.abc import Sequence

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.runs.selection import hacking


class Audits:
    """The auditors' scores: one set for each best-so-far that there was. They never select.

    Args:
        auditors: their names; none audit nothing.
    """

    def __init__(self, auditors: Sequence[str]) -> None:
        self._auditors = tuple(auditors)
        self._of: dict[Recipe, dict[str, float]] = {}
        self._points: tuple[dict[str, float], ...] = ()

    def wanted(self, best: Candidate) -> bool:
        """The best candidate so far is a finished image that the auditors have not seen."""
        return bool(self._auditors) and best.recipe.finished and best.recipe not in self._of

    def add(self, best: Candidate, audits: dict[str, float]) -> None:
        """What the auditors say of the best candidate so far."""
        self._of[best.recipe] = audits
        self._points = (*self._points, audits)

    def of(self, candidate: Candidate) -> dict[str, float] | None:
        """What they said of a candidate, if they saw it."""
        return self._of.get(candidate.recipe)

    @property
    def hacking(self) -> tuple[str, ...] | None:
        """The auditors that fell while the selecting score rose (see `hacking`); None without auditors."""
        return hacking(self._points, self._auditors) if self._auditors else None
