"""Rounds as pages show them: some candidates of each, with their recipes, for as long as images are kept.

The round log is the truth and has no recipes; to find these out again is to search again. What is shown is a picture
book beside it: bounded, and no loss when it is gone.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.errors import UnreadableRecord
from sitsearch.workers.jobs.job import Candidate, Round
from sitsearch.workers.jobs.lenient import read
from sitsearch.workers.jobs.logged import LEVEL

#: Candidates that are shown of a job, at most; of a round after them only the best.
MANY = 20_000


class ShownRound(Schema):
    """A round as pages show it.

    Attributes:
        round: its number.
        count: candidates that it had.
        candidates: those that are shown, in order of proposal.
        audits: what the auditors say of the best candidate so far.
    """

    round: int
    count: int
    candidates: tuple[Candidate, ...]
    audits: dict[str, float] | None = None


def chosen(candidates: Sequence[Candidate], most: int) -> tuple[Candidate, ...]:
    """Which candidates of a round are shown: the best and the first, and others from the best to the worst.

    Args:
        candidates: of one round. They are ranked by the first of the verifiers that select.
        most: how many are shown.
    """
    if len(candidates) <= most:
        return tuple(candidates)
    name = next(iter(candidates[0].scores))
    ranked = sorted(
        range(len(candidates)), key=lambda place: (candidates[place].invalid, -candidates[place].scores[name])
    )
    places = {ranked[0], 0} if most > 1 else {ranked[0]} if most else set[int]()
    step = (len(ranked) - 1) / max(1, most - 1)
    for at in range(1, most):
        if len(places) < most:
            places.add(ranked[round(at * step)])
    return tuple(candidates[place] for place in sorted(places))


def shown(round: Round, most: int) -> ShownRound:
    """A round with at most so many of its candidates."""
    return ShownRound(
        round=round.round,
        count=len(round.candidates),
        candidates=chosen(round.candidates, most) if round.candidates else (),
        audits=round.audits,
    )


def scores_of(candidates: Sequence[Candidate]) -> dict[str, Any]:
    """`ids` of candidates and their `scores`, a column for each verifier; empty if there are none."""
    names = [*candidates[0].scores] if candidates else []
    scores = {name: [candidate.scores[name] for candidate in candidates] for name in names}
    return {"ids": [candidate.id for candidate in candidates], "scores": scores} if candidates else {}


def pack(round: ShownRound) -> bytes:
    """A round's bytes in the store."""
    return zlib.compress(round.model_dump_json().encode(), LEVEL)


def unpack(packed: bytes) -> ShownRound:
    """The round of such bytes.

    Raises:
        UnreadableRecord: they are none.
    """
    try:
        return read(ShownRound, zlib.decompress(packed))
    except (ValidationError, ValueError, zlib.error) as error:
        raise UnreadableRecord(f"a round that was shown cannot be read: {error}") from error
