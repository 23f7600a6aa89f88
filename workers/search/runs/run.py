"""One search run from request to result: the state machine that every executor drives in the same way.

    run = SearchRun(request, method)
    run.replay(log)                      # after a crash; nothing on a fresh start
    while proposals := run.ask():
        run.tell(evaluate(proposals))    # in a test, in this process, or on the cluster
        log(run.log())
    run.result()
    run.extend(nfe)                      # and on it goes

Pure like the searches it drives: no I/O and no clock. `ask(out_of_time=True)` is how a caller with a clock ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from sitsearch.workers.errors import BudgetTooSmall, SearchError, UnknownName, Unsuitable
from sitsearch.workers.jobs.job import Candidate, CurvePoint, Extension, Progress, Result, ResultImage, Round, Usage
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search import base
from sitsearch.workers.search.base import Proposal, Search, check_told
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.plan import cap, final, make_allowance, reserved, sampling_of
from sitsearch.workers.search.runs.selection import Selection, hacking

#: Under which name a search is told the score that selects.
SELECTING = "selecting"

StopReason = Literal["budget", "score", "patience", "seconds"]


class SearchRun:
    """Drives one algorithm over one request.

    Args:
        request: the job's request, already checked.
        method: what a step of `request.sampler.method` costs.

    Raises:
        UnknownName: no such algorithm.
        Unsuitable: algorithm and sampler, or settings of the sampler, do not go together.
        BudgetTooSmall: the budget does not leave `num_images` finished candidates.
        pydantic.ValidationError: an option is unknown or out of range.

    Attributes:
        sampling: how trajectories are sampled, and what they cost.
        cap: the whole budget, in NFE.
        reserved: the part of it that is kept for the final generation.
        rounds: tells so far.
        progress, usage: what they came to.
    """

    def __init__(self, request: GenerateRequest, method: SamplerOffer) -> None:
        self._search = _algorithm(request, method)
        self.sampling = sampling_of(request, method)
        self.cap, self.reserved = cap(request), reserved(request, self.sampling)
        allowance = make_allowance(self._search, request, self.sampling)
        self.request = request
        self._state = self._search.init(allowance, self._search.Options.model_validate(request.search.options))
        self._selection = Selection(request.verifier)
        self._scores: dict[Recipe, float] = {}
        self._audited: tuple[dict[str, float], ...] = ()
        self._audits: dict[Recipe, dict[str, float]] = {}
        self._told: tuple[Candidate, ...] = ()
        self._top: tuple[Candidate, ...] = ()
        self._finals: tuple[Candidate, ...] = ()
        self._count = 0
        self._nfe_at_best = 0
        self._best_recipe: Recipe | None = None
        self._stopped_by: StopReason | None = None
        self.rounds = 0
        self.progress = Progress(nfe_budget=request.budget.nfe, forwards_budget=request.budget.forwards)
        self.usage = Usage()

    def ask(self, *, out_of_time: bool = False) -> tuple[Proposal, ...]:
        """The next round's proposals, in order; empty when the run is over."""
        if self._stopped_by is None:
            self._stopped_by = self._stop_reason(out_of_time=out_of_time)
        if self._stopped_by is None:
            if proposals := self._search.ask(self._state):
                return proposals
            self._stopped_by = "budget"
        return self._final_proposals()

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Take the evaluated proposals of the last `ask`, in order.

        Raises:
            SearchError: they do not answer the proposals, or lack a selecting verifier's score.
        """
        for candidate in candidates:
            if lacking := [name for name in self.request.verifier.names if name not in candidate.scores]:
                raise SearchError(f"candidate {candidate.id!r} has no score of {lacking[0]!r}")
        is_final = bool(candidates) and candidates[0].phase == "final"
        if is_final:
            if self._stopped_by is None:  # replayed: the log tells why the search ended, if only by what it left out
                self._stopped_by = self._stop_reason(out_of_time=bool(self._search.ask(self._state))) or "budget"
            check_told(self._final_proposals(), candidates)
        self._selection.add(candidates)
        self._rescore((*self._top, *self._finals, *candidates))
        if is_final:
            self._finals = self._best_of((*self._finals, *candidates))
        else:
            proposals = self._search.ask(self._state)
            if not self._selection.settled:
                self._state = base.rescored(self._state, self._selection.scores(base.remembered(self._state)))
            told = [c.model_copy(update={"scores": {SELECTING: self._scores[c.recipe]}}) for c in candidates]
            self._state = self._search.tell(self._state, proposals, told)
            self._top = self._best_of((*self._top, *candidates))
            self._count += len(candidates)
        self._account(candidates, is_final=is_final)
        self._told = tuple(candidates)
        self.rounds += 1

    @property
    def to_audit(self) -> Candidate | None:
        """The best candidate so far, if the request's auditors have not seen it."""
        best = self.best[0]
        wanted = self.request.auditors and best.recipe.finished and best.recipe not in self._audits
        return best if wanted else None

    def audit(self, audits: dict[str, float]) -> None:
        """What the auditors say of `to_audit`; they never select."""
        best = self.best[0]
        self._audits[best.recipe] = audits
        self._audited = (*self._audited, audits)
        if self.phase == "search":
            *before, point = self.progress.curve
            point = point.model_copy(update={"scores": (point.scores or {}) | audits})
            self.progress = self.progress.model_copy(update={"curve": (*before, point)})

    def log(self) -> Round:
        """The last round that was told, for the log; after its audit."""
        audits = self._audits.get(self.best[0].recipe)
        return Round(round=self.rounds - 1, candidates=self._told, audits=audits)

    def replay(self, rounds: Iterable[Round], extensions: Sequence[Extension] = ()) -> None:
        """Bring a fresh run to where the log ends, extended where the job was."""
        for logged in rounds:
            self._extend_where_due(extensions)
            if logged.round != self.rounds:
                raise SearchError(f"the log has round {logged.round} where {self.rounds} was due")
            self.tell(logged.candidates)
            if self.to_audit is not None and logged.audits is not None:
                self.audit(logged.audits)
        self._extend_where_due(extensions)

    def extend(self, nfe: int) -> None:
        """Let a run that has ended, or not, spend `nfe` more, and go on from its state.

        Raises:
            BudgetTooSmall: it buys less than another final generation.
        """
        if nfe < self.reserved:
            raise BudgetTooSmall("nfe", nfe, self.reserved)
        self._state = base.extend(self._state, nfe - self.reserved)
        self._stopped_by, self._nfe_at_best = None, self.usage.nfe_search
        raised: dict[str, int] = {}
        if self.progress.nfe_budget is not None:
            raised["nfe_budget"] = self.progress.nfe_budget + nfe
        if self.progress.forwards_budget is not None:
            raised["forwards_budget"] = self.progress.forwards_budget + nfe * self.request.sampler.rows
        self.progress = self.progress.model_copy(update=raised)

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The best candidates so far, best first, at most `num_images`; the final ones once the run is over."""
        return self._finals if self._finals and self._stopped_by is not None else self._top

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates whose images may still be asked for: `best` first, then those an extension may return to."""
        return self.best + tuple(c for c in self._finals if c not in self.best)

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
                ResultImage(rank=rank, score=self._scores[c.recipe], candidate=c, audits=self._audits.get(c.recipe))
                for rank, c in enumerate(self.best)
            ),
            candidates=self._count,
            hacking=hacking(self._audited, self.request.auditors) if self.request.auditors else None,
            stopped_by=self._stopped_by,
        )

    def _rescore(self, candidates: Sequence[Candidate]) -> None:
        """Bring the scores of what is remembered up to date."""
        self._scores = self._selection.scores([candidate.recipe for candidate in candidates])

    def _best_of(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The best distinct ones; a data prediction is no match for a finished image, whatever its score.

        Python's sort is stable and candidates come in order of proposal: ties go to the earlier one.
        """
        distinct = {c.recipe: c for c in reversed(candidates)}
        ordered = [c for c in candidates if distinct[c.recipe] is c]
        ordered.sort(key=lambda c: (not c.recipe.finished, -self._scores[c.recipe]))
        return tuple(ordered[: self.request.num_images])

    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        """A stop rule that holds now; none before the first round, so that there is always an answer."""
        stop, best = self.request.stop, self.progress.best_score
        if not self._top:
            return None
        if stop.score is not None and best is not None and best >= stop.score:
            return "score"
        if stop.patience_nfe is not None and best is not None:
            idle = self.usage.nfe_search - self._nfe_at_best
            if idle >= stop.patience_nfe:
                return "patience"
        return "seconds" if out_of_time else None

    def _final_proposals(self) -> tuple[Proposal, ...]:
        """The winners again at `final_steps`, from the last noise that was put in; none that is there already."""
        steps = self.request.sampler.final_steps
        if steps is None:
            return ()
        sampling, there = final(self.sampling, steps), {c.recipe for c in self._finals}
        proposals = []
        for rank, winner in enumerate(self._top):
            start = _last_noised(winner.recipe)
            recipe = start.then(sampling.to_end(start.time))
            if winner.recipe.finished and recipe not in there:
                nfe = sampling.cost(recipe, len(start.ops))
                proposals.append(
                    Proposal(id=f"{self.rounds}-final-{rank}", recipe=recipe, known=len(start.ops), nfe=nfe)
                )
        return tuple(proposals)

    def _extend_where_due(self, extensions: Sequence[Extension]) -> None:
        for extension in extensions:
            if extension.after_round == self.rounds:
                self.extend(extension.nfe)

    def _account(self, candidates: Sequence[Candidate], *, is_final: bool) -> None:
        phase = "final" if is_final else "search"
        nfe, forwards = sum(c.nfe for c in candidates), sum(c.forwards for c in candidates)
        self.usage = self.usage.model_copy(
            update={
                f"nfe_{phase}": getattr(self.usage, f"nfe_{phase}") + nfe,
                f"forwards_{phase}": getattr(self.usage, f"forwards_{phase}") + forwards,
            }
        )
        spent: dict[str, Any] = {
            "nfe_spent": self.progress.nfe_spent + nfe,
            "forwards_spent": self.progress.forwards_spent + forwards,
            "round": self.rounds + 1,
        }
        if not is_final and self._top[0].recipe.finished:
            best, score = self._top[0], self._scores[self._top[0].recipe]
            if best.recipe != self._best_recipe:
                self._best_recipe, self._nfe_at_best = best.recipe, self.usage.nfe_search
            scores = best.scores if self.request.verifier.members else None
            point = CurvePoint(nfe=spent["nfe_spent"], forwards=spent["forwards_spent"], score=score, scores=scores)
            spent |= {"best_score": score, "curve": (*self.progress.curve, point)}
        self.progress = self.progress.model_copy(update=spent)


def _algorithm(request: GenerateRequest, method: SamplerOffer) -> Search[Any]:
    name = request.search.algorithm
    if name not in ALGORITHMS:
        raise UnknownName("algorithm", name, ALGORITHMS)
    search = ALGORITHMS[name]
    if search.stochastic and not method.stochastic:
        raise Unsuitable("sampler.method", f"algorithm {name!r} needs a stochastic one, not {method.name!r}")
    return search


def _last_noised(recipe: Recipe) -> Recipe:
    """The recipe up to where noise was last put in: what follows is an ODE, which more steps solve better."""
    count = next((i for i in range(len(recipe.ops), 0, -1) if not isinstance(recipe.ops[i - 1], Integrate)), 0)
    return recipe.prefix(count) if count > len(recipe.noise.ops) else recipe.noise
