"""A toy landscape: a candidate's score is a function of its recipe, and it costs what was planned."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search.base import Allowance, Proposal, State
from sitsearch.workers.search.registry import ALGORITHMS, options_of
from sitsearch.workers.search.runs.plan import make_allowance, sampling_of
from sitsearch.workers.search.runs.run import SearchRun

METHODS = {
    offer.name: offer
    for offer in (
        SamplerOffer(name="euler", evaluations_per_step=1),
        SamplerOffer(name="heun", evaluations_per_step=2),
        SamplerOffer(name="euler_maruyama", evaluations_per_step=1, stochastic=True),
        SamplerOffer(name="glass", evaluations_per_step=1, stochastic=True, inner=True),
        SamplerOffer(name="heun_sde", evaluations_per_step=2, stochastic=True, noise_first=True),
    )
}


def rugged(recipe: Recipe) -> float:
    """White noise: no two recipes have anything in common."""
    return random.Random(recipe.model_dump_json()).gauss(0, 1)


def evaluate(
    proposals: Sequence[Proposal],
    phase: str = "search",
    score: Callable[[Recipe], float] = rugged,
    rows: int = 2,
) -> list[Candidate]:
    """What an executor would answer."""
    return [
        Candidate(
            id=p.id, recipe=p.recipe, nfe=p.nfe, forwards=rows * p.nfe, scores={"toy": score(p.recipe)}, phase=phase
        )
        for p in proposals
    ]


def default_method(name: str) -> str:
    """A sampling method that algorithm `name` works with."""
    return "euler_maruyama" if ALGORITHMS[name].stochastic else "heun"


def request(name: str, *, nfe: int = 400, **changes: object) -> GenerateRequest:
    """A request for algorithm `name`; `changes` replace its fields, `sampler` only those that it names."""
    sampler = {"method": default_method(name), "steps": 5} | dict(changes.pop("sampler", {}))  # type: ignore[call-overload]
    fields: dict[str, object] = {
        "condition": {"class": 0},
        "budget": {"nfe": nfe},
        "verifier": "toy",
        "search": {"algorithm": name},
        "seed": 5,
    }
    return GenerateRequest.model_validate(fields | changes | {"sampler": sampler})


def start(asked: GenerateRequest) -> SearchRun:
    """A fresh run."""
    return SearchRun(asked, METHODS[asked.sampler.method], METHODS.values())


def allowance_of(asked: GenerateRequest) -> Allowance:
    """What the search of `asked` may spend."""
    search = ALGORITHMS[asked.search.algorithm]
    return make_allowance(search, asked, sampling_of(asked, METHODS[asked.sampler.method]), METHODS.values())


def first_state(asked: GenerateRequest) -> State:
    """The state before the first round."""
    search = ALGORITHMS[asked.search.algorithm]
    state: State = search.init(allowance_of(asked), options_of(search, asked.search))
    return state


def states(asked: GenerateRequest) -> list[State]:
    """Every state of a search from its start to its end."""
    search, state = ALGORITHMS[asked.search.algorithm], first_state(asked)
    found = [state]
    while proposals := search.ask(state):
        state = search.tell(state, proposals, evaluate(proposals))
        found.append(state)
    return found


def finish(run: SearchRun) -> SearchRun:
    """Drive a run to its end."""
    while proposals := run.ask():
        run.tell(evaluate(proposals, run.phase))
        run.seal()
    return run
