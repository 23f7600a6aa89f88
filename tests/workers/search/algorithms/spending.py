"""What a search spends on passes of its algorithm, and what on plain trajectories."""

from __future__ import annotations

from collections.abc import Callable

from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.search.passes import PassState
from sitsearch.workers.search.registry import ALGORITHMS
from tests.workers.search.toy import evaluate, first_state, request, rugged

Score = Callable[[Recipe], float]


def spending(
    name: str, nfe: int, *, steps: int = 20, images: int = 1, score: Score = rugged, **options: object
) -> tuple[list[int], int]:
    """NFE of every pass, in order, and NFE of plain trajectories."""
    search = {"algorithm": name, **options}
    state = first_state(request(name, nfe=nfe, num_images=images, sampler={"steps": steps}, search=search))
    found, plain, under_way = [], 0, False
    while proposals := ALGORITHMS[name].ask(state):
        assert isinstance(state, PassState)
        cost = sum(proposal.nfe for proposal in proposals)
        if not under_way and proposals == state.plain():
            plain += cost
        elif under_way:
            found[-1] += cost
        else:
            found.append(cost)
        state = ALGORITHMS[name].tell(state, proposals, evaluate(proposals, score=score))
        under_way = bool(getattr(state, "parent", None) or (getattr(state, "pool", None) and name == "evo_search"))
    return found, plain


def passes(name: str, nfe: int, *, steps: int = 20, **options: object) -> list[int]:
    """NFE of every pass, in order."""
    return spending(name, nfe, steps=steps, **options)[0]  # type: ignore[arg-type]
