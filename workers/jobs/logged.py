"""Rounds as the log keeps them: what a search that asks again does not find out by itself.

Ids, recipes and conditions of candidates are those of the proposals that the search makes again, so only a digest of
these is kept, by which a log that another version would continue differently is found out.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Protocol

from pydantic import Field, PrivateAttr, ValidationError

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.errors import UnreadableRecord
from sitsearch.workers.jobs.fingerprint import Origin
from sitsearch.workers.jobs.job import Candidate, Choice, Phase, Round
from sitsearch.workers.jobs.lenient import read
from sitsearch.workers.jobs.recipe import Recipe

#: Of packed rounds: higher ones are tried, in the hope that what is new does not matter.
VERSION = 2
LEVEL = 6
#: Bytes of a packed round, of each of its candidates, and of each of their scores, a little more than was measured
#: (`python -m bench i`).
PER_ROUND, PER_CANDIDATE, PER_SCORE = 140, 1, 10


def log_bytes(candidates: int, rounds: int, verifiers: int) -> int:
    """About how large a log of so many candidates and rounds becomes, scored by so many verifiers."""
    return PER_ROUND * rounds + (PER_CANDIDATE + PER_SCORE * verifiers) * candidates


class Proposed(Protocol):
    """What a search proposes, as far as a candidate keeps it."""

    @property
    def id(self) -> str: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def condition(self) -> int: ...


class LoggedRound(Schema):
    """A `Round` without what asking again tells; a column each for what its candidates took and scored.

    Attributes:
        round, audits, baseline, choice, origin: see `Round`.
        phase: of all candidates.
        asked: `digest` of their recipes.
        nfe, forwards: of each candidate.
        gradients: of each, if any took some.
        scores: of each, by verifier.
        invalid: places of those that are.
    """

    version: int = VERSION
    round: Annotated[int, Field(ge=0)]
    phase: Phase = "search"
    asked: str = ""
    nfe: tuple[int, ...] = ()
    forwards: tuple[int, ...] = ()
    gradients: tuple[int, ...] = Field((), exclude_if=lambda gradients: not gradients)
    scores: dict[str, tuple[float, ...]] = Field(default_factory=dict)
    invalid: tuple[int, ...] = Field((), exclude_if=lambda invalid: not invalid)
    audits: dict[str, float] | None = Field(None, exclude_if=lambda audits: audits is None)
    baseline: tuple[dict[str, float], ...] = Field((), exclude_if=lambda baseline: not baseline)
    choice: Choice | None = Field(None, exclude_if=lambda choice: choice is None)
    origin: Origin | None = Field(None, exclude_if=lambda origin: origin is None)
    _text: str | None = PrivateAttr(None)

    @property
    def text(self) -> str:
        """Its JSON; of a round that was read, as it was written, with what this version does not know."""
        return self._text or self.model_dump_json()

    def __eq__(self, other: object) -> bool:
        """They say the same, however it was written."""
        return isinstance(other, LoggedRound) and self.__dict__ == other.__dict__

    def candidates(self, proposals: Sequence[Proposed]) -> tuple[Candidate, ...]:
        """The round's candidates.

        Args:
            proposals: what the search asks for at this place.

        Raises:
            SearchError: the log is of other proposals.
        """
        if self.asked != digest(proposal.recipe for proposal in proposals) or len(self.nfe) != len(proposals):
            raise SearchError(
                f"round {self.round} of the log answers other proposals than this version of the search makes"
            )
        names, rows = [*self.scores], [*zip(*self.scores.values(), strict=True)]
        return tuple(
            Candidate(
                id=proposal.id,
                recipe=proposal.recipe,
                nfe=self.nfe[place],
                forwards=self.forwards[place],
                scores=dict(zip(names, rows[place], strict=True)),
                phase=self.phase,
                condition=proposal.condition,
                gradients=self.gradients[place] if self.gradients else 0,
                invalid=place in self.invalid,
            )
            for place, proposal in enumerate(proposals)
        )


def logged(round: Round) -> LoggedRound:
    """A round as the log keeps it."""
    candidates = round.candidates
    gradients = tuple(candidate.gradients for candidate in candidates)
    return LoggedRound(
        round=round.round,
        phase=candidates[0].phase if candidates else "search",
        asked=digest(candidate.recipe for candidate in candidates),
        nfe=tuple(candidate.nfe for candidate in candidates),
        forwards=tuple(candidate.forwards for candidate in candidates),
        gradients=gradients if any(gradients) else (),
        scores={
            name: tuple(candidate.scores[name] for candidate in candidates)
            for name in (candidates[0].scores if candidates else ())
        },
        invalid=tuple(place for place, candidate in enumerate(candidates) if candidate.invalid),
        audits=round.audits,
        baseline=round.baseline,
        choice=round.choice,
        origin=round.origin,
    )


def digest(recipes: Iterable[Recipe]) -> str:
    """Of recipes, in order; of none it is empty."""
    texts = [recipe.model_dump_json() for recipe in recipes]
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=8).hexdigest() if texts else ""


def pack(round: LoggedRound) -> bytes:
    """A round's bytes in the log; the same for the same round."""
    return zlib.compress(round.text.encode(), LEVEL)


def parse(text: str) -> LoggedRound:
    """The round of its JSON.

    Raises:
        UnreadableRecord: it is none.
    """
    try:
        round = read(LoggedRound, text)
    except (ValidationError, ValueError) as error:
        raise UnreadableRecord(f"a round of the log cannot be read: {error}") from error
    round._text = text
    return round


def unpack(packed: bytes) -> LoggedRound:
    """The round of such bytes, or of the JSON of a `Round`, which logs of version 1 are made of.

    Fields that are not known are passed over: they are of a later version.

    Raises:
        UnreadableRecord: they are neither.
    """
    try:
        if packed[:1] == b"{":
            return logged(read(Round, packed))
        return parse(zlib.decompress(packed).decode())
    except (ValidationError, ValueError, zlib.error) as error:
        raise UnreadableRecord(f"a round of the log cannot be read: {error}") from error
