"""Which candidate came from which: found out from their recipes.

A recipe is a start noise and the operations that followed. The state after each of them was first made by the earliest
candidate whose recipe begins in the same way. So the parent of a candidate is the one that first made the last of the
states on its way which is not its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Blend, Neighbor, Perturb, Recipe, Renoise
from sitsearch.workers.jobs.shown import ShownRound

#: Children that are told of one candidate, and candidates of a family.
CHILDREN, FAMILY = 5, 120


@dataclass(frozen=True)
class Placed:
    """A candidate in its job.

    Attributes:
        candidate: it.
        round: where it was told.
        parent: id of the candidate that it came from; None if from plain noise.
        step: what was done to that, in words.
    """

    candidate: Candidate
    round: int
    parent: str | None
    step: str


def placed(rounds: Iterable[ShownRound]) -> dict[str, Placed]:
    """All candidates that are shown of a job, by id, in order."""
    first: dict[tuple[int, str], str] = {}  # the state after so many operations: which candidate made it
    found: dict[str, Placed] = {}
    for shown in rounds:
        fresh: dict[tuple[int, str], str] = {}
        for candidate in shown.candidates:
            parent, step = None, "fresh noise"
            for count, key in enumerate(_states(candidate.recipe)):
                if key in first:
                    parent, step = first[key], _words(candidate.recipe, count)
                fresh.setdefault(key, candidate.id)
            found[candidate.id] = Placed(candidate, shown.round, parent, step)
        first = fresh | first
    return found


def _states(recipe: Recipe) -> Iterable[tuple[int, str]]:
    """A key for the start noise, and for the state after each operation."""
    key = hash((recipe.seed, recipe.round, recipe.index))
    yield key, ""
    for op in recipe.ops:
        text = op.model_dump_json()
        yield key, text
        key = hash((key, text))


def _words(recipe: Recipe, shared: int) -> str:
    """What was done after the first `shared` operations of a recipe, in a few words."""
    for op in recipe.ops[shared:]:
        match op:
            case Neighbor():
                return f"neighbour, cosine {op.cosine:.3g}"
            case Blend():
                return f"mutation, strength {op.strength:.3g}"
            case Renoise():
                return f"re-noised to t = {op.to:.2g}"
            case Perturb():
                return f"moved by {op.scale:.2g}"
    if shared > len(recipe.noise.ops):
        return f"carried on to t = {recipe.time:.2g}"
    return "the same noise, sampled again"


def family(candidates: Mapping[str, Placed], name: str) -> list[Placed]:
    """A candidate's ancestors, their other children as far as there is room, and its own; in order of rounds.

    Args:
        candidates: of the job, see `placed`.
        name: id of one of them.
    """
    line = [candidates[name]]
    while (parent := line[-1].parent) is not None and len(line) < FAMILY:
        line.append(candidates[parent])
    kept = {one.candidate.id: one for one in line}
    children: dict[str, list[Placed]] = {}
    for one in candidates.values():
        if one.parent in kept and one.candidate.id not in kept:
            children.setdefault(one.parent, []).append(one)
    for ancestor in line:
        others = children.get(ancestor.candidate.id, [])
        others.sort(key=lambda one: -next(iter(one.candidate.scores.values())))
        room = FAMILY - len(kept)
        kept |= {one.candidate.id: one for one in others[: min(CHILDREN, room)]}
    return sorted(kept.values(), key=lambda one: (one.round, one.candidate.id))
