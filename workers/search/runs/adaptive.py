"""Search over many conditions that spends where it pays: `allocation: adaptive`.

First every condition gets a floor, a candidate each in turns; then round after round goes to the conditions that are
expected to gain most for their NFE (see `sitsearch.workers.search.runs.allocation`). A condition's images are its best
candidates, so that its gain is that of a draw over the worst of them.

The candidates of a condition are the same in whatever order they are asked for: number j of condition c starts from
noise (c, j). An even allocation of an image a condition draws the first of these too, only other numbers of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from sitsearch.workers.jobs.job import Candidate, StopReason
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.allocation import LARGEST, Seen, allotted, floor_of, round_size
from sitsearch.workers.search.runs.sets import ManyRun


class AdaptiveRun(ManyRun):
    """Allots the budget by expected gain, over a floor for every condition; for verifiers that score images alone.

    A condition whose images all reached `stop.score` gets no more, and the run ends when all have; by
    `stop.patience_nfe`, after so many NFE that bettered no image. The curve shows the mean score of the images.

    Attributes:
        floor: the candidates that every condition gets unless it reached `stop.score`. It stays as it is when the run
            is extended, and so does the size of a round.
    """

    def __init__(self, request: GenerateRequest, method: SamplerOffer) -> None:
        super().__init__(request, method)
        conditions = len(request.condition.each)
        self.floor = floor_of(self.affordable, conditions, request.per_condition)
        self._round_size = round_size(self.affordable - conditions * self.floor)
        self._seen = (Seen(),) * conditions
        self._chosen: tuple[tuple[Candidate, ...], ...] = ((),) * conditions
        self._newest: Candidate | None = None
        self._next: tuple[Proposal, ...] | None = None

    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        patience = self.request.stop.patience_nfe
        if not any(self._open()):
            return "score"
        if patience is not None and self._accounts.idle >= patience:
            return "patience"
        if not self._left():
            return "budget"
        return "seconds" if out_of_time else None

    def _left(self) -> int:
        """Candidates that are sure to fit in what is left."""
        return (self.cap - self.usage.nfe_search) // self.sampling.whole

    def _open(self) -> list[bool]:
        """Which conditions want more candidates."""
        target, wanted = self.request.stop.score, self.request.per_condition
        return [target is None or len(one.best) < wanted or one.best[-1] < target for one in self._seen]

    def _round(self) -> tuple[Proposal, ...]:
        if self._next is None:
            counts = [one.count for one in self._seen]
            proposals = []
            for condition in self._floor_round() or self._gaining_round():
                proposals.append(self.propose(condition, condition, counts[condition]))
                counts[condition] += 1
            self._next = tuple(proposals)
        return self._next

    def _floor_round(self) -> list[int]:
        """The conditions that are next in turn for their floor."""
        open_, lowest = self._open(), min(one.count for one in self._seen)
        due = (
            place
            for turn in range(lowest, self.floor)
            for place, one in enumerate(self._seen)
            if open_[place] and one.count <= turn
        )
        return [place for place, _ in zip(due, range(min(LARGEST, self._left())), strict=False)]

    def _gaining_round(self) -> tuple[int, ...]:
        return allotted(self._seen, min(self._round_size, self._left()), self._open())

    def _take(self, proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> tuple[Candidate, float]:
        seen, chosen, wanted = list(self._seen), list(self._chosen), self.request.per_condition
        for proposal, candidate in zip(proposals, candidates, strict=True):
            place = proposal.condition
            seen[place] = seen[place].told(self.score(candidate), candidate.nfe, wanted)
            # The sort is stable: of equal scores the earlier candidate stays.
            kept = sorted((*chosen[place], candidate), key=self.rank, reverse=True)[:wanted]
            if candidate in kept:
                self._newest = candidate
            chosen[place] = tuple(kept)
        self._seen, self._chosen, self._next = tuple(seen), tuple(chosen), None
        assert self._newest is not None  # the first candidate of a condition is its best
        scores = [self.score(candidate) for candidate in self.best]
        return self._newest, math.fsum(scores) / len(scores)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """See `ManyRun.best`; of several slots of a condition the first has the best. Slots fill in their order."""
        turns = range(self.request.per_condition)
        return tuple(kept[turn] for turn in turns for kept in self._chosen if turn < len(kept))

    def extend(self, nfe: int) -> None:
        """See `ManyRun.extend`."""
        self.cap += nfe
        self._stopped_by, self._next = None, None
        self._accounts.extend(nfe)
