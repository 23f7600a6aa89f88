"""Search over many conditions: one image for every slot, chosen greedily.

Ma et al. 2025 (arXiv 2501.09732, section 3.1) judge a class-conditional model by what random search finds for a whole
set: the slots are filled one after the other, each with the best of its N candidates. A verifier of sets (FID) scores a
candidate by the set so far with it added; any other verifier scores the candidate alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from sitsearch.workers.errors import BudgetTooSmall, SearchError, Unsuitable
from sitsearch.workers.jobs.job import Candidate, Result, ResultImage, Round, StopReason
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.algorithms.random_search import RandomOptions
from sitsearch.workers.search.base import Proposal, check_told
from sitsearch.workers.search.runs.accounts import Accounts
from sitsearch.workers.search.runs.plan import cap, sampling_of
from sitsearch.workers.search.runs.replaying import Replayed


class ManyRun(Replayed, ABC):
    """A run over many conditions; has the interface of `SearchRun`. What is shared by the ways to allot the budget.

    Args:
        request: a request for many conditions.
        method: what a step of `request.sampler.method` costs.

    Raises:
        Unsuitable: a field does not go together with many conditions.
        BudgetTooSmall: the budget does not buy one candidate a slot.

    Attributes:
        sampling: how trajectories are sampled, and what they cost.
        cap: the whole budget, in NFE.
        slots: the condition of every image that is wanted.
        affordable: candidates that the budget buys, at least as many as there are slots.
    """

    phase: Literal["search", "final"] = "search"
    reserved = 0
    to_audit: Candidate | None = None
    pool: tuple[Candidate, ...] = ()
    to_choose: tuple[Candidate, ...] = ()

    def __init__(self, request: GenerateRequest, method: SamplerOffer) -> None:
        super().__init__()
        options = request.search.options if request.search.algorithm == "auto" else {}
        for field, wrong in (
            *((f"search.{name}", True) for name in options),
            ("search.algorithm", request.search.algorithm not in ("random", "auto")),
            ("sampler.final_steps", request.sampler.final_steps is not None),
            ("num_images", request.num_images != 1),
            ("verifier.members", request.verifier.members is not None),
            ("auditors", bool(request.auditors)),
            ("guide", request.gradient is not None),
        ):
            if wrong:
                message = "must be left out with many conditions: their search is random, by one verifier"
                raise Unsuitable(field, message)
        if request.stop.target is not None:
            message = "must be left out with many conditions: give `stop.score`, which every image is to reach"
            raise Unsuitable("stop.target", message)
        if request.stop.audited:
            raise Unsuitable("stop.audited", "must be left out with many conditions, which are not audited")
        self.request, self.sampling, self.cap = request, sampling_of(request, method), cap(request)
        # Round after round through the conditions, so that a search that is cut short has some of each.
        self.slots = tuple(range(len(request.condition.each))) * request.per_condition
        whole = self.sampling.whole
        self.affordable = self.cap // whole
        if self.affordable < len(self.slots):
            least = len(self.slots) * whole
            for unit, needed in (("nfe", least), ("forwards", least * request.sampler.rows)):
                given = getattr(request.budget, unit)
                if given is not None and given < needed:
                    raise BudgetTooSmall(unit, given, needed)
        self._selector = request.verifier.name
        self._count = self._invalid = 0
        self._spent: Counter[int] = Counter()
        self._stopped_by: StopReason | None = None
        self._accounts = Accounts(request)

    def ask(self, *, out_of_time: bool = False) -> tuple[Proposal, ...]:
        """The next round's candidates; empty when the run is over."""
        if self._stopped_by is None and self.rounds:
            self._stopped_by = self._stop_reason(out_of_time=out_of_time)
        return self._round() if self._stopped_by is None else ()

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Take what became of the round; see `SearchRun.tell`."""
        proposals = self.ask()
        check_told(proposals, candidates)
        for candidate in candidates:
            if self._selector not in candidate.scores:
                raise SearchError(f"candidate {candidate.id!r} has no score of {self._selector!r}")
        self._count += len(candidates)
        self._invalid += sum(candidate.invalid for candidate in candidates)
        for proposal, candidate in zip(proposals, candidates, strict=True):
            self._spent[proposal.condition] += candidate.nfe
        newest, score = self._take(proposals, candidates)
        self._accounts.add(candidates, "search", newest, score)
        self._told = tuple(candidates)

    @abstractmethod
    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        """What ends the run now, after its first round."""

    @abstractmethod
    def _round(self) -> tuple[Proposal, ...]:
        """The proposals of a run that is not over."""

    @abstractmethod
    def _take(self, proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> tuple[Candidate, float]:
        """Choose among a round's candidates; the image that was chosen last, and what the curve is to show."""

    @property
    @abstractmethod
    def best(self) -> tuple[Candidate, ...]:
        """The chosen candidates, by slot."""

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The same: every image of the set stays."""
        return self.best

    @property
    def settled(self) -> tuple[Candidate, ...]:
        """Those of `best` that will not be replaced: what a verifier of sets judges the next candidates with."""
        return self.best

    def propose(self, condition: int, round: int, index: int) -> Proposal:
        """A whole trajectory of a condition from noise `(round, index)`."""
        noise = Recipe(seed=self.request.seed, round=round, index=index)
        return Proposal(
            id=f"{round}-{index}",
            recipe=noise.then(self.sampling.to_end(round=round, index=index)),
            nfe=self.sampling.whole,
            condition=condition,
        )

    def score(self, candidate: Candidate) -> float:
        """What selects; higher is better."""
        return candidate.scores[self._selector]

    def rank(self, candidate: Candidate) -> tuple[bool, float]:
        """The same, with those that could not be scored last."""
        return not candidate.invalid, self.score(candidate)

    def audit(self, audits: dict[str, float]) -> None:
        """A set is not audited."""

    def choose(self, features: Sequence[Sequence[float]]) -> None:
        """A set is not chosen anew."""

    def log(self) -> Round:
        """The last round that was told, for the log."""
        return Round(round=self.rounds - 1, candidates=self._told)

    def _take_logged(self, entry: Round | LoggedRound) -> None:
        self.tell(entry.candidates if isinstance(entry, Round) else entry.candidates(self.ask()))

    def asked_in(self, entry: LoggedRound) -> tuple[Proposal, ...]:
        """See `SearchRun.asked_in`."""
        return self.ask()

    def extend(self, nfe: int) -> None:
        """Let the run spend `nfe` more, and go on.

        Raises:
            SearchError: it cannot.
        """
        raise SearchError("a search over many conditions cannot be extended unless its `allocation` is adaptive")

    def result(self) -> Result:
        """The set, by slot; an image's score is that of its slot's choice, its NFE what its condition took in all.

        Raises:
            SearchError: the run is not over.
        """
        if self._stopped_by is None:
            raise SearchError("the run has no result yet")
        return self.result_so_far(self._stopped_by)

    def result_so_far(self, stopped_by: StopReason) -> Result:
        """See `SearchRun.result_so_far`."""
        return Result(
            images=tuple(
                ResultImage(rank=slot, score=self.score(c), candidate=c, nfe=self._spent[self.slots[slot]])
                for slot, c in enumerate(self.best)
            ),
            candidates=self._count,
            invalid=self._invalid,
            stopped_by=stopped_by,
            warnings=self._warnings(),
            origins=self.ledger.origins,
            log=self.ledger.digest,
        )

    def _warnings(self) -> tuple[str, ...]:
        """How many images were made, where they are fewer than was asked for."""
        made, wanted, warnings = len(self.best), len(self.slots), [*self.ledger.warnings]
        if self._invalid:
            warnings.append(f"{self._invalid} of {self._count} candidates could not be scored")
        if made < wanted:
            over = self._stopped_by == "seconds"
            why = "the time was over" if over else "the search ended before the others were begun"
            warnings.append(f"{made} of {wanted} images were made: {why}")
        return tuple(warnings)


class SetRun(ManyRun):
    """Fills `per_condition` slots for each of the request's conditions, one by one, by equal parts of the budget.

    What does not divide gives the first slots one candidate more. A slot takes one round, or with `stop.score` rounds
    of the option `round_size`, until its image has the score; what its part still had is left unspent. The run ends
    when all slots are filled.

    Raises:
        Unsuitable: `stop.patience_nfe` is given; otherwise see `ManyRun`.
        pydantic.ValidationError: an option of random search is unknown or out of range.
    """

    def __init__(self, request: GenerateRequest, method: SamplerOffer) -> None:
        super().__init__(request, method)
        if request.stop.patience_nfe is not None:
            message = "must be left out where many conditions share the budget evenly: `stop.score` ends each, or"
            raise Unsuitable("stop.patience_nfe", f"{message} set `allocation` to adaptive")
        self._per_slot, self._more = divmod(self.affordable, len(self.slots))
        self._filled: tuple[Candidate, ...] = ()
        self._open: Candidate | None = None  # the best so far of the slot that is being filled
        self._tried = 0  # candidates of it
        options = RandomOptions.model_validate(request.search.options)
        self._together = self.affordable if request.stop.score is None else options.round_size

    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        if len(self._filled) == len(self.slots):
            return "score" if all(self._reached(candidate) for candidate in self._filled) else "budget"
        return "seconds" if out_of_time else None

    def _reached(self, candidate: Candidate) -> bool:
        target = self.request.stop.score
        return target is not None and self.score(candidate) >= target

    def _part(self, slot: int) -> int:
        """Candidates that the budget buys for a slot."""
        return self._per_slot + (slot < self._more)

    def _round(self) -> tuple[Proposal, ...]:
        """The next candidates of the slot that is being filled."""
        slot = len(self._filled)
        end = min(self._part(slot), self._tried + self._together)
        return tuple(self.propose(self.slots[slot], slot, index) for index in range(self._tried, end))

    def _take(self, proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> tuple[Candidate, float]:
        # The first of equal scores stays.
        winner = max(candidates if self._open is None else (self._open, *candidates), key=self.rank)
        self._open, self._tried = winner, self._tried + len(candidates)
        if self._reached(winner) or self._tried == self._part(len(self._filled)):
            self._filled, self._open, self._tried = (*self._filled, winner), None, 0
        return winner, self.score(winner)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """See `ManyRun.best`."""
        return self.settled if self._open is None else (*self.settled, self._open)

    @property
    def settled(self) -> tuple[Candidate, ...]:
        """See `ManyRun.settled`: the images of the slots that are filled."""
        return self._filled
