"""One search run from request to result: the state machine that every executor drives in the same way.

    run = SearchRun(request, evaluations_per_step)
    run.replay(log)                      # after a crash; nothing on a fresh start
    while proposals := run.ask():
        run.tell(evaluate(proposals))    # in a test, in this process, or on the cluster
    run.result()

Pure like the searches it drives: no I/O and no clock. `ask(out_of_time=True)` is how a caller with a clock ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from workers.errors import SearchError, UnknownName
from workers.jobs.schemas import Candidate, CurvePoint, GenerateRequest, Progress, Result, ResultImage, Round, Usage
from workers.search import ALGORITHMS
from workers.search.base import Proposal, check_told
from workers.search.plan import allowance, make_plan

StopReason = Literal["budget", "score", "patience", "seconds"]


class SearchRun:
    """Drives one algorithm over one request.

    Args:
        request: the job's request, already checked.
        evaluations_per_step: field evaluations that one step of `request.sampler.method` takes.

    Raises:
        UnknownName: no such algorithm.
        BudgetTooSmall: the budget buys less than `num_images` candidates.
        pydantic.ValidationError: an option is unknown or out of range.
    """

    def __init__(self, request: GenerateRequest, evaluations_per_step: int) -> None:
        name = request.search.algorithm
        if name not in ALGORITHMS:
            raise UnknownName("algorithm", name, ALGORITHMS)
        self.request = request
        self.plan = make_plan(request, evaluations_per_step)
        self._search = ALGORITHMS[name]
        options = self._search.Options.model_validate(request.search.options)
        self._state = self._search.init(allowance(request, self.plan), options)
        self._selector = request.verifier.name
        self._top: tuple[Candidate, ...] = ()
        self._finals: tuple[Candidate, ...] = ()
        self._count = 0
        self._nfe_at_best = 0
        self._stopped_by: StopReason | None = None
        self.rounds = 0
        self.progress = Progress(nfe_budget=request.budget.nfe, forwards_budget=request.budget.forwards)
        self.usage = Usage()

    def ask(self, *, out_of_time: bool = False) -> tuple[Proposal, ...]:
        """The next round's proposals, in order; empty when the run is over."""
        if self._finals:
            return ()
        if self._stopped_by is None:
            self._stopped_by = self._stop_reason(out_of_time=out_of_time)
        if self._stopped_by is None:
            if proposals := self._search.ask(self._state):
                return proposals
            self._stopped_by = "budget"
        return self._final_proposals()

    def tell(self, candidates: Sequence[Candidate]) -> Round:
        """Take the evaluated proposals of the last `ask`, in order; returns the round for the log.

        Raises:
            SearchError: they do not answer the proposals, or lack the selecting verifier's score.
        """
        for candidate in candidates:
            if self._selector not in candidate.scores:
                raise SearchError(f"candidate {candidate.id!r} has no score of {self._selector!r}")
        final = bool(candidates) and candidates[0].phase == "final"
        if final:
            check_told(self._final_proposals(), candidates)
            if self._stopped_by is None:  # replayed: the log tells why the search ended, if only by what it left out
                self._stopped_by = self._stop_reason(out_of_time=bool(self._search.ask(self._state))) or "budget"
            self._finals = tuple(sorted(candidates, key=self._rank))
        else:
            self._state = self._search.tell(self._state, candidates)
            self._top = tuple(sorted((*self._top, *candidates), key=self._rank)[: self.request.num_images])
            self._count += len(candidates)
        self._account(candidates, final=final)
        done = Round(round=self.rounds, candidates=tuple(candidates))
        self.rounds += 1
        return done

    def replay(self, rounds: Iterable[Round]) -> None:
        """Bring a fresh run to where the log ends."""
        for logged in rounds:
            if logged.round != self.rounds:
                raise SearchError(f"the log has round {logged.round} where {self.rounds} was due")
            self.tell(logged.candidates)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The best candidates so far, best first, at most `num_images`; the final ones once they exist."""
        return self._finals or self._top

    @property
    def phase(self) -> Literal["search", "final"]:
        """What the proposals of the last `ask` are for."""
        return "search" if self._stopped_by is None else "final"

    def result(self) -> Result:
        """The answer of a run whose `ask` came back empty.

        Raises:
            SearchError: the run is not over, or nothing was evaluated.
        """
        if self._stopped_by is None or not self.best:
            raise SearchError("the run has no result yet")
        return Result(
            images=tuple(
                ResultImage(rank=rank, score=c.scores[self._selector], candidate=c) for rank, c in enumerate(self.best)
            ),
            candidates=self._count,
            stopped_by=self._stopped_by,
        )

    def _rank(self, candidate: Candidate) -> float:
        # Python's sort is stable and candidates come in order of proposal: ties go to the earlier one.
        return -candidate.scores[self._selector]

    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        """A stop rule that holds now; none before the first round, so that there is always an answer."""
        stop, best = self.request.stop, self.progress.best_score
        if best is None:
            return None
        if stop.score is not None and best >= stop.score:
            return "score"
        if stop.patience_nfe is not None and self.usage.nfe_search - self._nfe_at_best >= stop.patience_nfe:
            return "patience"
        return "seconds" if out_of_time else None

    def _final_proposals(self) -> tuple[Proposal, ...]:
        steps = self.request.sampler.final_steps
        if steps is None:
            return ()
        return tuple(Proposal(id=f"final-{rank}", recipe=c.recipe, steps=steps) for rank, c in enumerate(self._top))

    def _account(self, candidates: Sequence[Candidate], *, final: bool) -> None:
        phase = "final" if final else "search"
        nfe, forwards = sum(c.nfe for c in candidates), sum(c.forwards for c in candidates)
        self.usage = self.usage.model_copy(
            update={
                f"nfe_{phase}": getattr(self.usage, f"nfe_{phase}") + nfe,
                f"forwards_{phase}": getattr(self.usage, f"forwards_{phase}") + forwards,
            }
        )
        spent = {
            "nfe_spent": self.progress.nfe_spent + nfe,
            "forwards_spent": self.progress.forwards_spent + forwards,
            "round": self.rounds + 1,
        }
        if final:
            self.progress = self.progress.model_copy(update=spent)
            return
        score = self._top[0].scores[self._selector]
        if self.progress.best_score is None or score > self.progress.best_score:
            self._nfe_at_best = self.usage.nfe_search
        point = CurvePoint(nfe=spent["nfe_spent"], forwards=spent["forwards_spent"], score=score)
        self.progress = self.progress.model_copy(
            update=spent | {"best_score": score, "curve": (*self.progress.curve, point)}
        )
