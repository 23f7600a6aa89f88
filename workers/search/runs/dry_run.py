"""What a request would do, without doing it: the plan behind `POST /generate?dry_run=true` and `sitsearch plan`.

The search itself is run, with scores that tell nothing apart, and counted: what is planned and what is spent cannot
disagree. Where an algorithm's spending depends on scores, or the sampler chooses its steps, the plan says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.lessons.forecast import Forecast
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.drive import candidates_of
from sitsearch.workers.search.runs.start import Run, start_run

#: Rounds that are played through; the rest of a longer search is taken to be like them.
MAX_ROUNDS = 2000


class Phases(Schema):
    """A quantity by phase; what is `unspent` is less than another round of the search takes."""

    budget: int
    search: int
    final: int
    unspent: int


class Plan(Schema):
    """How a request's budget would be spent.

    Attributes:
        rounds, candidates: of the search.
        nfe: by phase.
        forwards: network rows in all, at most: guidance within an interval takes fewer. Of a budget in forwards those
            that it leaves go to more candidates, which are not counted here.
        exact: these are the numbers, not estimates.
        explanation: the same in sentences.
        forecast: what finished searches let expect of it; None where they were not asked.
    """

    algorithm: str
    rounds: int
    candidates: int
    nfe: Phases
    forwards: int
    exact: bool
    explanation: tuple[str, ...]
    forecast: Forecast | None = None


def make_plan(request: GenerateRequest, method: SamplerOffer, methods: Iterable[SamplerOffer] = ()) -> Plan:
    """The plan of a request that was admitted.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    request = request.model_copy(update={"stop": type(request.stop)()})
    run = start_run(request, method, methods)
    candidates = rounds = 0
    while (proposals := _asked(run)) and run.rounds < MAX_ROUNDS:
        nfe = [proposal.nfe for proposal in proposals]
        forwards = [count * request.sampler.rows for count in nfe]
        run.tell(candidates_of(proposals, nfe, forwards, [dict.fromkeys(request.verifier.names, 0.0)] * len(nfe), run))
        if run.phase == "search":
            candidates, rounds = candidates + len(proposals), rounds + 1
    budget, reserve = run.cap, run.reserved
    search, final = run.usage.nfe_search, run.usage.nfe_final
    played = not proposals
    if not played:
        share = (budget - reserve) / search
        search, final = budget - reserve, reserve
        rounds, candidates = round(rounds * share), round(candidates * share)
    phases = Phases(budget=budget, search=search, final=final, unspent=budget - search - final)
    exact = played and ALGORITHMS[request.search.algorithm].exact and not method.adaptive and not _saves_rows(request)
    return Plan(
        algorithm=request.search.algorithm,
        rounds=rounds,
        candidates=candidates,
        nfe=phases,
        forwards=(search + final) * request.sampler.rows,
        exact=exact,
        explanation=_explain(request, run, phases, rounds, candidates, exact=exact),
    )


def _asked(run: Run) -> tuple[Proposal, ...]:
    """The next round's proposals; of a diverse result, whose images are all alike here, the best are chosen."""
    proposals = run.ask()
    if pool := run.to_choose:
        run.choose([[0.0]] * len(pool))
        proposals = run.ask()
    return proposals


def _saves_rows(request: GenerateRequest) -> bool:
    """Evaluations outside of the guidance interval leave rows of the budget over, which buy more of them."""
    sampler = request.sampler
    return request.budget.nfe is None and sampler.rows == 2 and sampler.guidance_interval != (0.0, 1.0)


def _explain(
    request: GenerateRequest, run: Run, nfe: Phases, rounds: int, candidates: int, *, exact: bool
) -> tuple[str, ...]:
    about = "" if exact else "about "
    sampler = request.sampler
    lines = [
        f"search: {about}{candidates:,} candidates in {about}{rounds:,} rounds, {nfe.search:,} NFE; "
        f"a whole trajectory of {sampler.steps} {sampler.method} steps takes {run.sampling.whole}"
    ]
    if nfe.final:
        lines.append(
            f"final generation: {request.num_images} at {sampler.final_steps} steps, {nfe.final:,} NFE, kept aside"
        )
    if nfe.unspent:
        lines.append(f"unspent: {nfe.unspent:,} NFE, too few for another round")
    rows = "two network rows (guided)" if sampler.rows == 2 else "one network row"
    lines.append(f"an evaluation takes {rows}: at most {(nfe.search + nfe.final) * sampler.rows:,} forwards")
    return tuple(lines)
