"""Search over many conditions: one image for every slot, chosen greedily.

Ma et al. 2025 (arXiv 2501.09732, section 3.1) judge a class-conditional model by what random search finds for a whole
set: the slots are filled one after the other, each with the best of its N candidates. A verifier of sets (FID) scores a
candidate by the set so far with it added; any other verifier scores the candidate alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from sitsearch.workers.errors import BudgetTooSmall, SearchError, Unsuitable
from sitsearch.workers.jobs.job import Candidate, Extension, Result, ResultImage, Round
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Proposal, check_told
from sitsearch.workers.search.runs.accounts import Accounts, WithAccounts
from sitsearch.workers.search.runs.plan import cap, sampling_of


class SetRun(WithAccounts):
    """Fills `per_condition` slots for each of the request's classes, round by round; has the interface of `SearchRun`.

    The budget is shared out evenly; what does not divide gives the first slots one candidate more.

    Args:
        request: a request whose condition names `classes`.
        method: what a step of `request.sampler.method` costs.

    Raises:
        Unsuitable: a field does not go together with many conditions.
        BudgetTooSmall: the budget does not buy one candidate a slot.
    """

    phase: Literal["search", "final"] = "search"
    reserved = 0

    def __init__(self, request: GenerateRequest, method: SamplerOffer) -> None:
        classes = request.condition.classes or ()
        for field, wrong in (
            ("search.algorithm", request.search.algorithm != "random"),
            ("sampler.final_steps", request.sampler.final_steps is not None),
            ("num_images", request.num_images != 1),
            ("verifier.members", request.verifier.members is not None),
            ("auditors", bool(request.auditors)),
        ):
            if wrong:
                message = (
                    "must be left out with `condition.classes`: the search is random, by one verifier, an image a slot"
                )
                raise Unsuitable(field, message)
        self.request, self.sampling, self.cap = request, sampling_of(request, method), cap(request)
        # Round after round through the classes, so that a search that is cut short has some of each.
        self.slots = tuple(range(len(classes))) * request.per_condition
        whole = self.sampling.whole
        affordable = self.cap // whole
        if affordable < len(self.slots):
            least = len(self.slots) * whole
            for unit, needed in (("nfe", least), ("forwards", least * request.sampler.rows)):
                given = getattr(request.budget, unit)
                if given is not None and given < needed:
                    raise BudgetTooSmall(unit, given, needed)
        self._per_slot, self._more = divmod(affordable, len(self.slots))
        self._selector = request.verifier.name
        self._chosen: tuple[Candidate, ...] = ()
        self._told: tuple[Candidate, ...] = ()
        self._count = 0
        self._stopped_by: Literal["budget", "score", "seconds"] | None = None
        self._accounts = Accounts(request)

    def ask(self, *, out_of_time: bool = False) -> tuple[Proposal, ...]:
        """The candidates of the next slot; empty when all are filled or the time is over."""
        if self._stopped_by is None and self._chosen:
            best, target = self.progress.best_score, self.request.stop.score
            if len(self._chosen) == len(self.slots):
                self._stopped_by = "budget"
            elif target is not None and best is not None and best >= target:
                self._stopped_by = "score"
            elif out_of_time:
                self._stopped_by = "seconds"
        if self._stopped_by is not None:
            return ()
        slot = len(self._chosen)
        count = self._per_slot + (slot < self._more)
        end = self.sampling.to_end
        return tuple(
            Proposal(
                id=f"{slot}-{index}",
                recipe=Recipe(seed=self.request.seed, round=slot, index=index).then(end(round=slot, index=index)),
                nfe=self.sampling.whole,
                condition=self.slots[slot],
            )
            for index in range(count)
        )

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Take the slot's candidates and keep the best; see `SearchRun.tell`."""
        check_told(self.ask(), candidates)
        for candidate in candidates:
            if self._selector not in candidate.scores:
                raise SearchError(f"candidate {candidate.id!r} has no score of {self._selector!r}")
        winner = max(candidates, key=lambda c: c.scores[self._selector])
        self._chosen = (*self._chosen, winner)
        self._count += len(candidates)
        self._accounts.add(candidates, "search", winner, winner.scores[self._selector])
        self._told = tuple(candidates)

    to_audit: Candidate | None = None

    def audit(self, audits: dict[str, float]) -> None:
        """A set is not audited."""

    def log(self) -> Round:
        """The last slot that was filled, for the log."""
        return Round(round=self.rounds - 1, candidates=self._told)

    def replay(self, rounds: Iterable[Round], extensions: Sequence[Extension] = ()) -> None:
        """Bring a fresh run to where the log ends.

        Raises:
            SearchError: it was extended, which a set is not, or the log has a gap.
        """
        if extensions:
            raise SearchError("a search over many conditions cannot be extended")
        for logged in rounds:
            if logged.round != self.rounds:
                raise SearchError(f"the log has round {logged.round} where {self.rounds} was due")
            self.tell(logged.candidates)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The chosen candidates, by slot."""
        return self._chosen

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The same: every image of the set stays."""
        return self._chosen

    def result(self) -> Result:
        """The set, by slot; an image's score is that of its slot's choice.

        Raises:
            SearchError: the run is not over.
        """
        if self._stopped_by is None:
            raise SearchError("the run has no result yet")
        return Result(
            images=tuple(
                ResultImage(rank=rank, score=c.scores[self._selector], candidate=c)
                for rank, c in enumerate(self._chosen)
            ),
            candidates=self._count,
            stopped_by=self._stopped_by,
        )
