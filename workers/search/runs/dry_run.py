"""What a request would do, without doing it: the plan behind `POST /generate?dry_run=true` and `sitsearch plan`.

The search itself is run, with scores that tell nothing apart, and counted: what is planned and what is spent cannot
disagree. Where an algorithm's spending depends on scores, or the sampler chooses its steps, the plan says so. Of a long
search only the beginning is played through: a plan takes seconds, whatever it is of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.request import GenerateRequest, VerifierChoice
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.lessons.forecast import Forecast
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.adaptive import AdaptiveRun
from sitsearch.workers.search.runs.drive import candidates_of
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.sets import SetRun
from sitsearch.workers.search.runs.start import Run, start_run

#: Rounds that are played through; the rest of a longer search is taken to be like them.
MAX_ROUNDS = 2000
#: Candidates after which no further round is played.
MAX_CANDIDATES = 10_000
#: The same where the plan is an estimate anyway, of candidates that a search had in mind, summed over its rounds: one
#: that remembers all of them, a tree, looks through them in every round.
MAX_REMEMBERED = 12_000
#: Values of an option that are written out.
SHOWN = 8


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
        gradients: of a verifier that guides, in all.
        exact: these are the numbers, not estimates.
        chosen: what the options that the request leaves open come to for this budget, by name.
        explanation: the same in sentences.
        forecast: what finished searches let expect of it; None where they were not asked.
    """

    algorithm: str
    rounds: int
    candidates: int
    nfe: Phases
    forwards: int
    gradients: int = 0
    exact: bool
    chosen: dict[str, Any] = Field(default_factory=dict)
    explanation: tuple[str, ...]
    forecast: Forecast | None = None


def make_plan(request: GenerateRequest, method: SamplerOffer, methods: Iterable[SamplerOffer] = ()) -> Plan:
    """The plan of a request that was admitted.

    Raises:
        UnknownName, Unsuitable, BudgetTooSmall, pydantic.ValidationError: see `SearchRun`.
    """
    request = request.model_copy(update={"stop": type(request.stop)()})
    run = start_run(request, method, methods)
    if request.verifier.members is not None:  # that tell nothing apart either, and rank what they know in every round
        request = request.model_copy(update={"verifier": VerifierChoice(name="made up")})
        run = start_run(request, method, methods)
    chosen = dict(run.chosen) if isinstance(run, SearchRun) else {}
    follows = not isinstance(run, SearchRun) or ALGORITHMS[request.search.algorithm].exact
    if isinstance(run, SetRun):
        rounds, candidates, played = len(run.slots), run.affordable, True
        search, final, gradients = candidates * run.sampling.whole, 0, 0
    else:
        rounds, candidates, played = _play(run, None if follows else MAX_REMEMBERED)
        search, final = run.usage.nfe_search, run.usage.nfe_final
        gradients = run.usage.gradients_search
    budget, reserve = run.cap, run.reserved
    if not played:
        share = (budget - reserve) / search
        search, final = budget - reserve, reserve
        rounds, candidates, gradients = (round(count * share) for count in (rounds, candidates, gradients))
    gradients += 0 if isinstance(run, SetRun) else run.usage.gradients_final
    phases = Phases(budget=budget, search=search, final=final, unspent=budget - search - final)
    exact = played and follows and not method.adaptive and not _saves_rows(request)
    return Plan(
        algorithm=request.search.algorithm,
        rounds=rounds,
        candidates=candidates,
        nfe=phases,
        forwards=(search + final) * request.sampler.rows,
        gradients=gradients,
        exact=exact,
        chosen=chosen,
        explanation=_explain(request, run, phases, rounds, candidates, gradients, chosen, exact=exact),
    )


def _asked(run: Run) -> tuple[Proposal, ...]:
    """The next round's proposals; of a diverse result, whose images are all alike here, the best are chosen."""
    proposals = run.ask()
    if pool := run.to_choose:
        run.choose([[0.0]] * len(pool))
        proposals = run.ask()
    return proposals


def _play(run: SearchRun | AdaptiveRun, most: int | None) -> tuple[int, int, bool]:
    """Play a run through, at most `MAX_ROUNDS` rounds, and none after `MAX_CANDIDATES` candidates.

    Args:
        run: fresh.
        most: nor any after a search had so many candidates in mind, summed over its rounds.

    Returns:
        The rounds and candidates of its search, and whether that was all of it.
    """
    request, rounds, candidates, looked = run.request, 0, 0, 0
    scores = {request.verifier.name: 0.0}
    while proposals := _asked(run):
        if run.phase == "search":
            looked += run.remembers if isinstance(run, SearchRun) else 0
            enough = most is not None and looked > most
            if enough or run.rounds >= MAX_ROUNDS or candidates >= MAX_CANDIDATES:
                return rounds, candidates, False
        nfe = [proposal.nfe for proposal in proposals]
        forwards = [count * request.sampler.rows for count in nfe]
        if run.phase == "search":
            rounds, candidates = rounds + 1, candidates + len(proposals)
        gradients = [proposal.gradients for proposal in proposals]
        run.tell(candidates_of(proposals, nfe, forwards, [scores] * len(nfe), run, gradients))
    return rounds, candidates, True


def _saves_rows(request: GenerateRequest) -> bool:
    """Evaluations outside of the guidance interval leave rows of the budget over, which buy more of them."""
    sampler = request.sampler
    return request.budget.nfe is None and sampler.rows == 2 and sampler.guidance_interval != (0.0, 1.0)


def _explain(
    request: GenerateRequest,
    run: Run,
    nfe: Phases,
    rounds: int,
    candidates: int,
    gradients: int,
    chosen: Mapping[str, Any],
    *,
    exact: bool,
) -> tuple[str, ...]:
    about = "" if exact else "about "
    sampler = request.sampler
    lines = [
        f"search: {about}{candidates:,} candidates in {about}{rounds:,} rounds, {nfe.search:,} NFE; "
        f"a whole trajectory of {sampler.steps} {sampler.method} steps takes {run.sampling.whole}"
    ]
    if request.search.preset == "paper":
        taken = ALGORITHMS[request.search.algorithm].paper
        values = {name: value for name, value in taken.items() if name not in request.search.options}
        lines.append(f"preset paper: {_listed(values) or 'it names no option that is left out'}")
    if chosen:
        lines.append(f"for this budget: {_listed(chosen)}")
    if isinstance(run, AdaptiveRun):
        lines.append(_shared_out(run))
    if (guide := request.gradient) is not None:
        some = "some trajectories follow" if request.search.algorithm == "auto" else "every trajectory follows"
        watched = f"audited by {', '.join(request.auditors)}" if request.auditors else "audited by nobody, as asked"
        lines.append(
            f"guided: {some} the gradient of {guide.verifier}, {about}{gradients:,} gradients, a forward and a "
            f"backward pass of it each; {watched}"
        )
    if nfe.final:
        lines.append(
            f"final generation: {request.num_images} at {sampler.final_steps} steps, {nfe.final:,} NFE, kept aside"
        )
    if nfe.unspent:
        lines.append(f"unspent: {nfe.unspent:,} NFE, too few for another round")
    rows = "two network rows (guided)" if sampler.rows == 2 else "one network row"
    lines.append(f"an evaluation takes {rows}: at most {(nfe.search + nfe.final) * sampler.rows:,} forwards")
    return tuple(lines)


def _listed(options: Mapping[str, Any]) -> str:
    """Options with their values, in words: `particles 23, populations 14:7:7`."""
    return ", ".join(f"{name} {_value(value)}" for name, value in options.items())


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        shown = [*value[:SHOWN], "..."] if len(value) > SHOWN + 1 else value
        return ":".join(map(_value, shown)) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "on", False: "off", None: "none"}[value]
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shared_out(run: AdaptiveRun) -> str:
    """Who gets the budget of many conditions."""
    conditions = len(run.request.condition.each)
    more = run.affordable - conditions * run.floor
    return (
        f"each of {conditions:,} conditions gets {run.floor:,} candidates at least; to which of them the other "
        f"{more:,} go depends on the scores"
    )
