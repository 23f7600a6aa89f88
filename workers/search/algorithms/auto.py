"""The default search: a bandit that spends a budget on small passes of other searches, and a part of it at random.

Three commitments:

- A stated `share` of every budget is plain random search, candidate by candidate the very ones that `random` would draw
  first. So `auto` with a budget B is never worse than `random` with `share` B: it has those candidates too.
- The rest goes to passes of other searches, the arms. Each pass begins from noise of its own, or around the best
  candidates so far, takes about `nfe_of_pass` and ends in finished images; its reward is the best score that it found.
  Which arm is next is a max-k-armed bandit's choice, as what counts is the best candidate of all and not the mean.
- Passes are few where the budget is small, and several are under way at once where it is large, so that the pools that
  sample stay full.

The bandit is MaxUCB (Balef, Vernade, Eggensperger 2025, arXiv 2505.05226): of arm i with n_i passes, of t in all,

    U_i = m_i + (alpha log(t) / n_i)^2,

m_i the best that the arm found, in standard deviations of the random candidates' scores. An arm that has not been tried
counts as half a pass, and as good as its prior makes it in relation to those that were: a prior is how much an arm's
pass gains on random search of the same NFE. Where the budget buys a pass or two, the priors are what chooses.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search import base
from sitsearch.workers.search.algorithms.arms import ARMS, ArmName, Pass, begun
from sitsearch.workers.search.algorithms.random_search import RandomOptions

#: How `random` names its draws: so many in a round.
DRAWN_TOGETHER: int = RandomOptions().round_size
#: A pass gets this part of the budget, but not fewer and not more whole trajectories than these; the last one the rest,
#: if that is not fewer than so many.
PART_OF_BUDGET, GOOD_PASS, MOST_PASS, LEAST_PASS = 8, 8, 50, 2
#: The same of a pass that may be guided.
LEAST_GUIDED = 1
#: As how many passes an arm counts that has not been tried.
UNTRIED = 0.5
#: Random candidates that are remembered for the mean and spread of scores.
REMEMBERED = 64
#: Passes that are under way at once, at most, and the passes of a whole search for each of them.
MOST_AT_ONCE, FOR_EACH = 4, 4


class AutoOptions(base.Options):
    """Options of the automatic search."""

    share: float = Field(0.125, ge=0, le=1, description="part of the NFE that goes to plain random search")
    arms: tuple[ArmName, ...] = Field(
        tuple(ARMS), min_length=1, max_length=len(ARMS), description="searches that it may choose from"
    )
    priors: dict[ArmName, Annotated[float, Field(ge=-100, le=100)]] = Field(
        {},
        description="what a first pass gains on random search, in standard deviations; what is left out: as measured",
    )
    alpha: float = Field(0.5, ge=0, le=100, description="how much is explored, alpha of MaxUCB")
    at_once: int | None = Field(None, ge=1, le=64, description="passes under way at once; null: by the budget")


class Tried(Schema):
    """What an arm came to.

    Attributes:
        arm: its name.
        passes: of it that ended.
        best: the best candidate that they found.
        nfe, found: of each of the last passes, what it took and its best score. One around earlier candidates took all
            that was spent to find them.
    """

    arm: ArmName
    passes: int
    best: base.Scored
    nfe: tuple[int, ...] = ()
    found: tuple[float, ...] = ()


class AutoState(base.State):
    """A search under way.

    Attributes:
        drawn: random candidates proposed so far.
        seen: the first of them, with their scores.
        best: the best finished candidate, which may be searched around.
        tried: of every arm that has ended a pass.
        standing: of the same arms, how far their best is above the random candidates' mean, in standard deviations: as
            it was told, for what is begun must not depend on when scores are brought up to date.
        random_nfe: what random candidates took.
        begun: passes begun so far.
        passes: those under way.
    """

    options: AutoOptions
    drawn: int = 0
    seen: tuple[base.Scored, ...] = ()
    best: base.Scored | None = None
    tried: tuple[Tried, ...] = ()
    standing: tuple[tuple[ArmName, float], ...] = ()
    random_nfe: int = 0
    begun: int = 0
    passes: tuple[Pass, ...] = ()


class Dealt(NamedTuple):
    """What is done next: random candidates, and passes, of which some may be new.

    Attributes:
        draws: random candidates.
        passes: those under way.
        begun: passes begun so far, with the new ones.
    """

    draws: int
    passes: tuple[Pass, ...]
    begun: int


class AutoSearch:
    """Random search and passes of other searches, by what they have found so far."""

    name: ClassVar[str] = "auto"
    title: ClassVar[str] = "Automatic (bandit over searches)"
    reference: ClassVar[str] = "sitsearch, after Balef et al. 2025, arXiv 2505.05226"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = False
    chooses_guide: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = AutoOptions
    State: ClassVar[type[base.State]] = AutoState

    def chosen(self, allowance: base.Allowance, options: AutoOptions) -> Mapping[str, Any]:
        """The random share in candidates, the NFE of a pass, how many run at once, and which arms come first."""
        state = AutoState(allowance=allowance, options=options)
        dealt = _dealt(state)
        return {
            "random candidates": _random_share(state),
            "NFE of a pass": dealt.passes[0].left if dealt.passes else 0,
            "passes at once": _at_once(state),
            "first": tuple(part.arm for part in dealt.passes) or ("random",),
        }

    def least(self, allowance: base.Allowance, options: AutoOptions) -> int:
        """As many plain trajectories as are wanted."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: AutoOptions) -> AutoState:
        """The state before anything was dealt out."""
        return AutoState(allowance=allowance, options=options)

    def ask(self, state: AutoState) -> tuple[base.Proposal, ...]:
        """What the passes under way want next, and the random candidates that go with them."""
        dealt = _dealt(state)
        proposals = [state.propose(0, _drawn(state, state.drawn + place)) for place in range(dealt.draws)]
        proposals += [proposal for part in dealt.passes for proposal in part.ask()]
        back = "revisit" in state.options.arms
        return tuple(
            proposal.model_copy(update={"id": f"{state.round}-{place}", "revisited": proposal.recipe.finished and back})
            for place, proposal in enumerate(proposals)
        )

    def tell(self, state: AutoState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]) -> AutoState:
        """Hand to each pass what it asked for; the passes that are over become the bandit's experience."""
        told = base.advance(state, proposals, candidates)
        dealt = _dealt(state)
        drawn = [base.scored(c) for c in candidates[: dealt.draws]]
        passes, tried, place = [], {arm.arm: arm for arm in state.tried}, dealt.draws
        for part in dealt.passes:
            asked = part.ask()
            part = part.tell(asked, candidates[place : place + len(asked)])
            place += len(asked)
            if part.ask():
                passes.append(part)
            elif part.best is not None:
                took = told.spent if ARMS[part.arm].around else part.state.spent
                tried[part.arm] = _with(tried.get(part.arm), part.arm, part.best, took)
        ended = [base.scored(c) for c in candidates if c.recipe.finished]
        best = max([*([state.best] if state.best else []), *ended], key=lambda scored: scored.score, default=None)
        seen = (*state.seen, *drawn)[:REMEMBERED]
        return told.model_copy(
            update={
                "drawn": state.drawn + dealt.draws,
                "random_nfe": state.random_nfe + sum(c.nfe for c in candidates[: dealt.draws]),
                "seen": seen,
                "standing": _standing(seen, tried.values()),
                "best": best,
                "tried": tuple(tried.values()),
                "begun": dealt.begun,
                "passes": tuple(passes),
            }
        )


def nfe_of_pass(allowance: base.Allowance) -> int:
    """What a pass is given: an eighth of the budget, within 8 and 50 whole trajectories."""
    whole = allowance.sampling.whole
    return max(GOOD_PASS * whole, min(MOST_PASS * whole, allowance.nfe // PART_OF_BUDGET))


def _random_share(state: AutoState) -> int:
    """Random candidates of the whole search: those that the share of the budget buys, and as many as are wanted."""
    whole = state.sampling.whole
    return max(state.allowance.keep, int(state.options.share * state.allowance.nfe / whole))


def _at_once(state: AutoState) -> int:
    passes = round((1 - state.options.share) * state.allowance.nfe / nfe_of_pass(state.allowance))
    return state.options.at_once or min(MOST_AT_ONCE, max(1, passes // FOR_EACH))


def _drawn(state: AutoState, number: int) -> Recipe:
    """The candidate that `random` would draw as its `number`th, counted from 0."""
    round, index = divmod(number, DRAWN_TOGETHER)
    noise = state.allowance.fresh(round, index)
    return noise.then(state.sampling.to_end(round=round, index=index))


def _dealt(state: AutoState) -> Dealt:
    """What is done next: random candidates, and new passes where too few are under way.

    Random candidates keep step with what is given to passes, so that their share is kept wherever the search ends. What
    no pass fits into is random search too.
    """
    whole, size, share = state.sampling.whole, nfe_of_pass(state.allowance), state.options.share
    passes, number = list(state.passes), state.begun
    left = state.left - sum(part.left for part in passes)
    due = max(0, _random_share(state) - state.drawn) * whole  # of the random share: it is given to no pass
    least = (LEAST_GUIDED if state.allowance.guided else LEAST_PASS) * whole
    while len(passes) < _at_once(state) and left - due >= least:
        given = min(size, left - due)
        if left - due - given < least:
            given = left - due  # what is left besides would buy no pass
        part = _next_pass(state, passes, number, given)
        if part is None:
            break
        passes.append(part)
        number, left = number + 1, left - given
    if passes:
        others = state.spent - state.random_nfe + sum(part.left for part in passes)
        in_step = math.ceil(share / (1 - share) * others / whole) if share < 1 else 0
        draws = max(0, min(in_step - state.drawn, left // whole))
    else:
        draws = min(DRAWN_TOGETHER, left // whole)
    return Dealt(draws, tuple(passes), number)


def _next_pass(state: AutoState, passes: Sequence[Pass], number: int, nfe: int) -> Pass | None:
    """A pass of MaxUCB's choice among the arms that can begin one; None if none can."""
    under_way = [part.arm for part in passes]
    found = dict(state.standing)
    counts = {arm.arm: arm.passes for arm in state.tried}
    prior = {name: state.options.priors.get(name, ARMS[name].prior) for name in ARMS}
    # where the arms that were tried are, in relation to their priors, those that were not are taken to be as well
    level = statistics.fmean([best - prior[name] for name, best in found.items()]) if found else 0.0
    rounds = sum(counts.values()) + len(under_way) + 1

    def index(name: ArmName) -> float:
        count = counts.get(name, 0) + under_way.count(name) or UNTRIED
        return found.get(name, level + prior[name]) + (state.options.alpha * math.log(rounds) / count) ** 2

    most = state.allowance.gradients
    gradients = None if most is None else most - state.gradients - sum(part.gradients_left for part in passes)
    for name in sorted(state.options.arms, key=index, reverse=True):  # stable: the first of equals is ahead
        part = begun(name, state.allowance, number, nfe, state.best, gradients)
        if part is not None and part.ask():
            return part
    return None


def _standing(seen: Sequence[base.Scored], tried: Iterable[Tried]) -> tuple[tuple[ArmName, float], ...]:
    """How far the arms' best are above the random candidates' mean, in standard deviations."""
    scores = [scored.score for scored in seen]
    mean, unit = (statistics.fmean(scores), statistics.pstdev(scores) or 1.0) if scores else (0.0, 1.0)
    return tuple((arm.arm, (arm.best.score - mean) / unit) for arm in tried)


def _with(tried: Tried | None, arm: ArmName, best: base.Scored, nfe: int) -> Tried:
    """What an arm came to, with another pass of it."""
    if tried is None:
        return Tried(arm=arm, passes=1, best=best, nfe=(nfe,), found=(best.score,))
    return Tried(
        arm=arm,
        passes=tried.passes + 1,
        best=max(tried.best, best, key=lambda scored: scored.score),
        nfe=(*tried.nfe, nfe)[-REMEMBERED:],
        found=(*tried.found, best.score)[-REMEMBERED:],
    )
