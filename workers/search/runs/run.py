"""One search run from request to result: the state machine that every executor drives in the same way.

    run = SearchRun(request, method)
    run.replay(log)                      # after a crash; nothing on a fresh start
    while proposals := run.ask():
        run.tell(evaluate(proposals))    # in a test, in this process, or on the cluster
        log(run.seal())
    if run.to_choose:                    # of a diverse result; then it is asked for a final generation
        run.choose(features(run.to_choose))
        log(run.seal())
    run.result()
    run.extend(nfe)                      # and on it goes

Pure like the searches it drives: no I/O and no clock. `ask(out_of_time=True)` is how a caller with a clock ends it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sitsearch.workers.errors import BudgetTooSmall, SearchError, UnknownName, Unsuitable
from sitsearch.workers.jobs.job import (
    Candidate,
    Choice,
    Estimate,
    Phase,
    Result,
    ResultImage,
    Round,
    StopReason,
)
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search import base
from sitsearch.workers.search.base import Proposal, Search, check_told
from sitsearch.workers.search.registry import ALGORITHMS, options_of
from sitsearch.workers.search.runs.accounts import Accounts
from sitsearch.workers.search.runs.audits import Audits
from sitsearch.workers.search.runs.diversity import choose
from sitsearch.workers.search.runs.finishing import finishing
from sitsearch.workers.search.runs.plan import cap, make_allowance, reserved, sampling_of
from sitsearch.workers.search.runs.replaying import Replayed
from sitsearch.workers.search.runs.target import Aim, missed
from sitsearch.workers.search.runs.winners import Winners

#: Trajectories of a search by `auto` whose winners are compared with its random candidates.
LARGE = 64
#: Under which name a search is told the score that selects.
SELECTING = "selecting"


class SearchRun(Replayed):
    """Drives one algorithm over one request.

    Args:
        request: the job's request, already checked.
        method: what a step of `request.sampler.method` costs.
        methods: all that there are, for algorithms that use others besides it.

    Raises:
        UnknownName: no such algorithm.
        Unsuitable: algorithm and sampler, or settings of the sampler, do not go together.
        BudgetTooSmall: the budget does not leave `num_images` finished candidates.
        pydantic.ValidationError: an option is unknown or out of range.

    Attributes:
        sampling: how trajectories are sampled, and what they cost.
        cap: the whole budget, in NFE.
        reserved: the part of it that is kept for the final generation.
    """

    def __init__(self, request: GenerateRequest, method: SamplerOffer, methods: Iterable[SamplerOffer] = ()) -> None:
        super().__init__()
        self._search = _algorithm(request, method)
        self.sampling = sampling_of(request, method)
        self.cap, self.reserved = cap(request), reserved(request, self.sampling)
        allowance = make_allowance(self._search, request, self.sampling, methods)
        self.request = request
        if request.stop.audited and not request.auditors:
            raise Unsuitable("stop.audited", "needs `auditors`, whose judgement of the best image it waits for")
        self._state = self._search.init(allowance, options_of(self._search, request.search))
        self._accounts = Accounts(request)
        algorithm = request.search.algorithm
        adapts = algorithm != "random" or request.gradient is not None
        # of a large search; the random share of a small one is too few to compare with
        plain = algorithm == "auto" and allowance.nfe >= LARGE * self.sampling.whole
        self._audits = Audits(request.auditors, plain=plain, compares=adapts)
        self._winners = Winners(request, allowance)
        self._aim = None if request.stop.target is None else Aim(request.stop.target, self.sampling.steps)
        self._count = 0
        self._owed = 0  # NFE that finishing took of what the search may spend, until an extension makes up for it
        self._saved = 0  # NFE that rows which unguided evaluations saved have bought so far
        self._stopped_by: StopReason | None = None
        self._invalid = 0
        self._asked: tuple[Any, tuple[Proposal, ...]] | None = None  # a state, and what the search asks there

    def ask(self, *, out_of_time: bool = False) -> tuple[Proposal, ...]:
        """The next round's proposals, in order; empty when the run is over, or has first `to_choose`."""
        if self._stopped_by is None:
            self._stopped_by = self._stop_reason(out_of_time=out_of_time)
        if self._stopped_by is None:
            proposals, room = self._searched(), self._gradients_left
            if proposals and (room is None or sum(proposal.gradients for proposal in proposals) <= room):
                return proposals
            self._stopped_by = "gradients" if proposals else "budget"
        return self._finish_proposals() or self._final_proposals()

    def tell(self, candidates: Sequence[Candidate]) -> None:
        """Take the evaluated proposals of the last `ask`, in order.

        Raises:
            SearchError: they do not answer the proposals, or lack a selecting verifier's score.
        """
        for candidate in candidates:
            if lacking := [name for name in self.request.verifier.names if name not in candidate.scores]:
                raise SearchError(f"candidate {candidate.id!r} has no score of {lacking[0]!r}")
        phase: Phase = candidates[0].phase if candidates else "search"
        if phase != "search":
            self._end_as_logged()
            check_told(self._finish_proposals() if phase == "finish" else self._final_proposals(), candidates)
        self._winners.see(candidates)
        if phase == "final":
            self._winners.add_final(candidates)
            self._accounts.add(candidates, phase, None, 0.0)
        else:
            if phase == "search":
                proposals = self._searched()
                told = [c.model_copy(update={"scores": {SELECTING: self._winners.score(c)}}) for c in candidates]
                self._state = self._search.tell(self._winners.up_to_date(self._state), proposals, told)
            else:
                self._owed += sum(candidate.nfe for candidate in candidates)
            self._winners.add(candidates)
            self._count += len(candidates)
            self._invalid += sum(candidate.invalid for candidate in candidates)
            best = self._winners.top[0]
            scores = best.scores if self.request.verifier.members else None
            finished = best if best.recipe.finished else None
            self._accounts.add(candidates, phase, finished, self._winners.score(best), scores)
            if phase == "search":
                self._spend_saved()
            self._take_aim(candidates if phase == "search" else ())
        self._told, self._compared = tuple(candidates), ()

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """What a choice that is still to come may take so far, best first; empty unless a diverse result is wanted."""
        return self._winners.pool if self.request.diversity and self._winners.choice is None else ()

    @property
    def to_choose(self) -> tuple[Candidate, ...]:
        """The same once the search is over, if there are more than were asked for: tell it their features."""
        over = self._stopped_by is not None and not self._finish_proposals()
        return self.pool if over and len(self.pool) > self.request.num_images else ()

    def choose(self, features: Sequence[Sequence[float]]) -> None:
        """Choose a diverse result.

        It is an entry of the log by itself, so that who goes on from the log need not find the same features again.

        Args:
            features: `[M, D]`, of the images of `to_choose`, in that order.

        Raises:
            SearchError: there are not so many to choose among.
        """
        pool = self.to_choose
        if len(features) != len(pool) or not pool:
            raise SearchError(f"told the features of {len(features)} images where there are {len(pool)} to choose from")
        scores = [self._winners.score(candidate) for candidate in pool]
        self._take_choice(choose(pool, scores, features, self.request.num_images, self.request.diversity))

    @property
    def to_audit(self) -> Candidate | None:
        """The best candidate so far, if the request's auditors have not seen it."""
        best = self.best[0]
        return best if self._audits.wanted(best) else None

    def audit(self, audits: dict[str, float]) -> None:
        """What the auditors say of `to_audit`; they never select."""
        self._audits.add(self.best[0], audits)
        if self.best is self._winners.top:
            self._accounts.annotate(audits)

    @property
    def to_compare(self) -> tuple[Candidate, ...]:
        """Candidates of the last round that the auditors are to see besides, before `to_audit`."""
        return self._audits.to_compare(self._told)

    def compare(self, audits: Sequence[dict[str, float]]) -> None:
        """What the auditors say of `to_compare`, in order."""
        self._compared = tuple(audits)
        self._audits.compare(audits)

    def log(self) -> Round:
        """The last round that was told, for the log; after its audit."""
        return Round(
            round=self.rounds - 1,
            candidates=self._told,
            audits=self._audits.of(self.best[0]),
            baseline=self._compared,
            choice=None if self._told else self._winners.choice,
        )

    def _take_logged(self, entry: Round | LoggedRound) -> None:
        if entry.choice is None:
            self.tell(entry.candidates if isinstance(entry, Round) else entry.candidates(self.asked_in(entry)))
        else:
            self._end_as_logged()
            self._take_choice(entry.choice)
        if entry.baseline:
            self.compare(entry.baseline)
        if self.to_audit is not None and entry.audits is not None:
            self.audit(entry.audits)

    def asked_in(self, entry: LoggedRound) -> tuple[Proposal, ...]:
        """What was asked in the round of the log that is due."""
        if entry.choice is not None:
            return ()
        if entry.phase == "search":
            return self._searched()
        self._end_as_logged()
        return self._finish_proposals() if entry.phase == "finish" else self._final_proposals()

    def _searched(self) -> tuple[Proposal, ...]:
        """What the search asks where it stands; found out once."""
        if self._asked is None or self._asked[0] is not self._state:
            self._asked = self._state, self._search.ask(self._state)
        return self._asked[1]

    def extend(self, nfe: int) -> None:
        """Let a run that has ended, or not, spend `nfe` more, and go on from its state.

        Raises:
            BudgetTooSmall: it buys less than what it takes to go on from where the search stood, and another final
                generation.
        """
        least = self.reserved + self._owed
        if nfe < least:
            raise BudgetTooSmall("nfe", nfe, least)
        self._state = base.extend(self._state, nfe - least)
        self._stopped_by, self._owed = None, 0
        self._winners.choose(None)
        self._accounts.extend(nfe)
        self._take_aim(())

    @property
    def best(self) -> tuple[Candidate, ...]:
        """The best candidates so far, best first, at most `num_images`; once the run is over, the final ones, or those
        that were chosen."""
        finals = self._winners.finals
        return finals if finals and self._stopped_by is not None else self._winners.chosen or self._winners.top

    @property
    def kept(self) -> tuple[Candidate, ...]:
        """The candidates whose images may still be asked for: `best` first, then what may yet be among them."""
        return tuple({c.id: c for c in (*self.best, *self._winners.finals, *self._winners.held)}.values())

    @property
    def state(self) -> base.State:
        """Where the search stands."""
        state: base.State = self._state
        return state

    @property
    def finished(self) -> dict[Recipe, float]:
        """What the finished images of the search select by, those of the final generation left out."""
        return self._winners.finished

    @property
    def chosen(self) -> Mapping[str, Any]:
        """What the algorithm's open options come to, by name; see `Search.chosen`."""
        return self._search.chosen(self._state.allowance, options_of(self._search, self.request.search))

    @property
    def remembers(self) -> int:
        """Candidates that the search has in mind."""
        return len(base.remembered(self._state))

    @property
    def phase(self) -> Phase:
        """What the proposals of the last `ask` are for."""
        if self._stopped_by is None:
            return "search"
        return "finish" if self._finish_proposals() else "final"

    def result(self) -> Result:
        """The answer of a run whose `ask` came back empty.

        Raises:
            SearchError: the run is not over, or nothing was evaluated.
        """
        if self._stopped_by is None or not self.best or self.to_choose:
            raise SearchError("the run has no result yet")
        return self.result_so_far(self._stopped_by)

    def result_so_far(self, stopped_by: StopReason) -> Result:
        """The best that there is by now, for a job that is ended by something else than its search."""
        return Result(
            images=tuple(
                ResultImage(
                    rank=rank,
                    score=self._winners.score(c),
                    candidate=c,
                    audits=self._audits.of(c),
                    finished=c.recipe.finished,
                    estimate=self._estimate(c) if rank == 0 and c.recipe.finished else None,
                )
                for rank, c in enumerate(self.best)
            ),
            candidates=self._count,
            invalid=self._invalid,
            hacking=self._audits.hacking(self.best[0] if self.best else None),
            stopped_by=stopped_by,
            warnings=self._warnings(),
            choice=self._winners.choice,
            origins=self.ledger.origins,
            log=self.ledger.digest,
        )

    def _estimate(self, winner: Candidate) -> Estimate | None:
        """What the winner's score is worth: to auditors where a verifier guided, else by the search's own scores."""
        own, audited = self._winners.estimate(), self._audits.estimate(winner)
        return (audited or own) if self.request.gradient is not None else (own or audited)

    def _stop_reason(self, *, out_of_time: bool) -> StopReason | None:
        """A stop rule that holds now; none before the first round, so that there is always an answer."""
        stop, best = self.request.stop, self.progress.best_score
        if not self._winners.top:
            return None
        if stop.score is not None and best is not None and best >= stop.score:
            return "score"
        if stop.target is not None and best is not None and best >= stop.target.score:
            return "target"
        if stop.patience_nfe is not None and best is not None and self._accounts.idle >= stop.patience_nfe:
            return "patience"
        if stop.audited and self._audits.turned_down:
            return "audited"
        return "seconds" if out_of_time else None

    @property
    def _gradients_left(self) -> int | None:
        """Gradients that the search may still take; None for any number."""
        most, usage = self._state.allowance.gradients, self.usage
        return None if most is None else most - usage.gradients_search - usage.gradients_finish

    def _take_aim(self, candidates: Sequence[Candidate]) -> None:
        """Say how far the request's target is, by what these add to what was seen."""
        if self._aim is not None:
            self._aim.see([(candidate, self._winners.score(candidate)) for candidate in candidates])
            self._accounts.aim(self._aim.progress(self.progress.best_score, self._state.left - self._owed))

    def _spend_saved(self) -> None:
        """Let a search that has planned its forwards at their most, and is at its end, have what was not taken.

        An evaluation outside of the guidance interval takes one row, where two were planned.
        """
        saved = self.usage.nfe_search - math.ceil(self.usage.forwards_search / self.request.sampler.rows)
        if self.request.budget.nfe is None and saved > self._saved and not self._searched():
            self._state, self._saved = base.extend(self._state, saved - self._saved), saved

    def _finish_proposals(self) -> tuple[Proposal, ...]:
        """What is missing of the finished images that were asked for."""
        return finishing(
            [candidate.recipe for candidate in self._winners.top],
            self.request.num_images,
            self._state.allowance,
            seed=self.request.seed,
            round=self.rounds,
            room=self._state.left - self._owed,
            gradients=self._gradients_left,
        )

    def _final_proposals(self) -> tuple[Proposal, ...]:
        """The winners again at `final_steps`."""
        steps = self.request.sampler.final_steps
        return () if steps is None or self.to_choose else self._winners.again(steps, self.rounds)

    def _end_as_logged(self) -> None:
        """What was replayed is past the search: the log tells why that ended, if only by what it left out."""
        if self._stopped_by is None:
            self._stopped_by = self._stop_reason(out_of_time=bool(self._searched())) or "budget"

    def _take_choice(self, choice: Choice) -> None:
        self._winners.choose(choice)
        self._accounts.add((), "search", None, 0.0)
        self._told, self._compared = (), ()

    def _warnings(self) -> tuple[str, ...]:
        """Where the images are fewer, or less, than was asked for, or the target was not reached."""
        warnings, wanted = [*self.ledger.warnings], self.request.num_images
        if self._invalid:
            warnings.append(f"{self._invalid} of {self._count} candidates could not be scored")
        if len(self.best) < wanted:
            warnings.append(f"{len(self.best)} of {wanted} images were made: the budget had no room for more")
        if previews := [str(rank) for rank, c in enumerate(self.best) if not c.recipe.finished]:
            ranks = ", ".join(previews)
            warnings.append(
                f"images of rank {ranks} are data predictions, not finished: the budget had no room to finish them"
            )
        if self.request.diversity and self._winners.choice is None:
            warnings.append(f"no more than {wanted} finished images were made: diversity had nothing to choose from")
        if (target := self.progress.target) is not None and not target.reached:
            warnings.append(missed(target, self.progress.best_score))
        return tuple(warnings)


def _algorithm(request: GenerateRequest, method: SamplerOffer) -> Search[Any]:
    name = request.search.algorithm
    if name not in ALGORITHMS:
        raise UnknownName("algorithm", name, ALGORITHMS)
    search = ALGORITHMS[name]
    if search.stochastic and not method.stochastic:
        raise Unsuitable("sampler.method", f"algorithm {name!r} needs a stochastic one, not {method.name!r}")
    if getattr(search, "steers", False) and method.adaptive:
        raise Unsuitable("sampler.method", f"algorithm {name!r} needs one of fixed steps, not {method.name!r}")
    if getattr(search, "steers", False) and request.gradient is not None:
        raise Unsuitable("guide", f"goes with other algorithms: {name!r} guides trajectories by itself")
    return search
