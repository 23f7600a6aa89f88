"""The ask/tell protocol that every search algorithm follows.

A search is pure: `ask(state)` proposes and changes nothing, `tell(state, candidates)` returns the next state. State is
frozen and serialises to JSON; every random draw is a function of the job's seed, the round and the index. No I/O, no
clock, no device. Asking again after a crash therefore gives the same proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from workers.errors import SearchError
from workers.jobs.schemas import Candidate, Recipe, Schema


class Options(Schema):
    """Base of an algorithm's options; its JSON schema is what `GET /algorithms` shows."""


class Proposal(Schema):
    """A trajectory that a search wants evaluated. `id` is unique within the job."""

    id: str
    recipe: Recipe
    steps: int


class Allowance(Schema):
    """What a search may spend: `candidates` trajectories of `steps` sampling steps each (at least one)."""

    candidates: int
    steps: int
    seed: int


class State(Schema):
    """Base of an algorithm's state: `round` counts the tells so far."""

    round: int = 0


S = TypeVar("S", bound=State)


class Search(Protocol[S]):
    """One algorithm."""

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    Options: ClassVar[type[Options]]
    State: ClassVar[type[State]]

    def init(self, allowance: Allowance, options: Any) -> S:
        """The state before the first round."""

    def ask(self, state: S) -> tuple[Proposal, ...]:
        """The next round's proposals; empty when the search has nothing left to try. Never changes `state`."""

    def tell(self, state: S, candidates: Sequence[Candidate]) -> S:
        """The state after the round's proposals were evaluated.

        Raises:
            SearchError: the candidates are not those that `ask(state)` proposes, in that order.
        """


def check_told(proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> None:
    """Raise SearchError unless `candidates` answer `proposals` one by one."""
    if len(candidates) != len(proposals):
        raise SearchError(f"told {len(candidates)} candidates for {len(proposals)} proposals")
    for proposal, candidate in zip(proposals, candidates, strict=True):
        if candidate.id != proposal.id:
            raise SearchError(f"told candidate {candidate.id!r} where {proposal.id!r} was asked for")
