"""What the auditors say of a run's best candidates, and of some others to compare them with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sitsearch.workers.jobs.job import Candidate, Estimate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.runs.estimates import audited, standing
from sitsearch.workers.search.runs.selection import hacking

#: A candidate lies so many standard deviations from the mean, and two from one another, in one case of twenty.
ONE, TWO = 1.96, 2.77
#: Candidates that winners are compared with: the first finished ones of the search, plain ones where it has any.
BASELINE = 16


class Audits:
    """The auditors' scores: one set for each best-so-far that there was. They never select.

    Args:
        auditors: their names; none audit nothing.
        plain: some of the search's candidates are drawn as random search would draw them, unguided: the baseline is of
            these alone.
        compares: winners are compared with a baseline.
    """

    def __init__(self, auditors: Sequence[str], *, plain: bool, compares: bool) -> None:
        self._auditors, self._plain = tuple(auditors), plain
        self._room = BASELINE if compares and auditors else 0
        self._of: dict[Recipe, dict[str, float]] = {}
        self._points: tuple[dict[str, float], ...] = ()
        self._baseline: tuple[dict[str, float], ...] = ()

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

    def to_compare(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """Of a round those that the auditors are to see besides, for the baseline."""
        found = [c for c in candidates if c.recipe.finished and not (self._plain and _steered(c.recipe))]
        return tuple(found[: max(0, self._room - len(self._baseline))])

    def compare(self, audits: Sequence[dict[str, float]]) -> None:
        """What they say of `to_compare`."""
        self._baseline = (*self._baseline, *audits)

    def estimate(self, winner: Candidate) -> Estimate | None:
        """What the winner's score is worth to them; None where they have not seen enough."""
        seen = self.of(winner)
        return None if seen is None else audited(seen, self._baseline)

    @property
    def turned_down(self) -> bool:
        """An auditor thinks less of the newest best candidate than of an earlier one, beyond chance."""
        found = [[self._standing(name, point) for point in self._points] for name in self._auditors]
        return any(row[-1] < max(row) - TWO for row in found if row)

    def hacking(self, winner: Candidate | None) -> tuple[str, ...] | None:
        """The auditors that speak against the verifier; None without auditors.

        Those that fell while the selecting score rose (see `hacking`), and those to which the winner lies below the
        baseline, beyond chance.
        """
        if not self._auditors:
            return None
        seen, falling = self.of(winner) if winner else None, hacking(self._points, self._auditors)
        return tuple(name for name in self._auditors if name in falling or (seen and self._standing(name, seen) < -ONE))

    def _standing(self, name: str, audits: Mapping[str, float]) -> float:
        """What an auditor says, in standard deviations above the baseline's mean; 0 where it has not seen enough."""
        found = standing(audits[name], [row[name] for row in self._baseline])
        return 0.0 if found is None else found[0]


def _steered(recipe: Recipe) -> bool:
    """It is not drawn as random search would draw it."""
    return recipe.method is not None or recipe.guided or len(recipe.ops) != 1
