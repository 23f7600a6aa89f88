"""What a run has spent, and how its best score rose with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sitsearch.workers.jobs.job import Candidate, CurvePoint, Phase, Progress, TargetProgress, Usage
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest


class Accounts:
    """The books of one run.

    Args:
        request: whose budget it is.

    Attributes:
        progress, usage: what the rounds so far came to.
        idle: NFE of the search since its best candidate was found, or since it was extended.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self._rows = request.sampler.rows
        budget = request.budget
        self.progress = Progress(
            nfe_budget=budget.nfe, forwards_budget=budget.forwards, gradients_budget=budget.gradients
        )
        self.usage = Usage()
        self._best: Recipe | None = None
        self._nfe_at_best = 0

    @property
    def idle(self) -> int:
        """See the class."""
        return self.usage.nfe_search - self._nfe_at_best

    def add(
        self,
        candidates: Sequence[Candidate],
        phase: Phase,
        best: Candidate | None,
        score: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """Book a round.

        Args:
            candidates: what was evaluated.
            phase: what for.
            best: the best finished candidate so far, which becomes a point of the curve; None leaves the curve as it
                is.
            score: what `best` selects by.
            scores: of the members of an ensemble.
        """
        took = {unit: sum(getattr(c, unit) for c in candidates) for unit in ("nfe", "forwards", "gradients")}
        more = {f"{unit}_{phase}": getattr(self.usage, f"{unit}_{phase}") + count for unit, count in took.items()}
        self.usage = self.usage.model_copy(update=more)
        spent: dict[str, Any] = {
            f"{unit}_spent": getattr(self.progress, f"{unit}_spent") + count for unit, count in took.items()
        }
        spent["round"] = self.progress.round + 1
        if best is not None:
            if best.recipe != self._best:
                self._best, self._nfe_at_best = best.recipe, self.usage.nfe_search
            point = CurvePoint(
                nfe=spent["nfe_spent"],
                forwards=spent["forwards_spent"],
                gradients=spent["gradients_spent"],
                score=score,
                scores=None if scores is None else dict(scores),
            )
            spent |= {"best_score": score, "curve": _grown(self.progress.curve, point)}
        self.progress = self.progress.model_copy(update=spent)

    def annotate(self, audits: Mapping[str, float]) -> None:
        """Note on the curve's last point what the auditors say of its candidate."""
        *before, point = self.progress.curve
        point = point.model_copy(update={"scores": (point.scores or {}) | dict(audits)})
        self.progress = self.progress.model_copy(update={"curve": (*before, point)})

    def aim(self, target: TargetProgress) -> None:
        """Note how far the search is from its target."""
        self.progress = self.progress.model_copy(update={"target": target})

    def extend(self, nfe: int) -> None:
        """Raise the budget by `nfe`; patience starts anew."""
        self._nfe_at_best = self.usage.nfe_search
        more = {"nfe_budget": nfe, "forwards_budget": nfe * self._rows}
        raised = {name: old + more[name] for name in more if (old := getattr(self.progress, name)) is not None}
        self.progress = self.progress.model_copy(update=raised)


def _grown(curve: tuple[CurvePoint, ...], point: CurvePoint) -> tuple[CurvePoint, ...]:
    """A curve with another point; where nothing changes, with the first and the last of its points."""
    flat = len(curve) > 1 and all(_level(other) == _level(point) for other in curve[-2:])
    return (*curve[:-1], point) if flat else (*curve, point)


def _level(point: CurvePoint) -> tuple[Any, ...]:
    return point.score, point.scores


class WithAccounts:
    """A run that keeps accounts.

    Attributes:
        progress, usage: what the rounds so far came to.
        rounds: tells so far.
    """

    _accounts: Accounts

    @property
    def progress(self) -> Progress:
        """See the class."""
        return self._accounts.progress

    @property
    def usage(self) -> Usage:
        """See the class."""
        return self._accounts.usage

    @property
    def rounds(self) -> int:
        """See the class."""
        return self.progress.round
