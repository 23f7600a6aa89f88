"""The ask/tell protocol that every search algorithm follows.

A search is pure: `ask(state)` proposes and changes nothing, `tell(state, proposals, candidates)` returns the next
state. State is frozen and serialises to JSON; every random draw is a function of the job's seed, the round and the
index. No I/O, no clock, no device. Asking again after a crash therefore gives the same proposals.

A search spends at most `allowance.nfe`, and goes on for as long as another candidate fits: one that has finished a pass
of its algorithm begins another from fresh noise. That makes every algorithm anytime, and extensible: `extend` raises
the allowance, and the next `ask` goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import Field

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe, Reference
from sitsearch.workers.search.sampling import Sampling


class Options(Schema):
    """Base of an algorithm's options; its JSON schema is what `GET /algorithms` shows."""


class Proposal(Schema):
    """A candidate that a search wants evaluated and scored: on its image, or before t = 1 on its data prediction.

    Attributes:
        id: unique within the job.
        recipe: how it comes about.
        known: operations at the recipe's front whose result an earlier candidate of the job left behind.
        evaluated: the field was evaluated there too (the earlier candidate ended there).
        condition: which of the request's conditions it is of, where there are many.
        nfe: what it costs, `Sampling.cost(recipe, known, evaluated)`; an adaptive sampler may take less.
        revisited: a later candidate may go on from its end, although that is a finished image.
        gradients: of a verifier, that it takes; `Sampling.gradients(recipe, known)`.
        references: what a `Lookahead` of its recipe counts; a reference may itself be guided by those before it. They
            are `revisited` candidates of the job.
    """

    id: str
    recipe: Recipe
    known: int = 0
    evaluated: bool = False
    condition: int = 0
    nfe: int
    revisited: bool = Field(False, exclude_if=lambda revisited: not revisited)
    gradients: int = Field(0, exclude_if=lambda gradients: not gradients)
    references: tuple[Reference, ...] = Field((), exclude_if=lambda references: not references)


class Allowance(Schema):
    """What a search may spend, and on what.

    Attributes:
        seed: the job's seed.
        nfe: the most that all proposals together may cost.
        keep: finished candidates that the request wants; every search must leave at least so many.
        sampling: how trajectories are sampled and what they cost.
        steered: the same by stochastic methods, for searches that use several.
        guided: both of them guided by a verifier's gradient, for searches that choose what they guide.
        gradients: of a verifier, that all candidates together may take; None is any number.
        start: the noise that the search begins with, if that is not its own first one.
    """

    seed: int
    nfe: int
    keep: int
    sampling: Sampling
    steered: tuple[Sampling, ...] = ()
    guided: tuple[Sampling, ...] = Field((), exclude_if=lambda guided: not guided)
    gradients: int | None = Field(None, exclude_if=lambda gradients: gradients is None)
    start: Recipe | None = Field(None, exclude_if=lambda start: start is None)

    def fresh(self, round: int, index: int) -> Recipe:
        """The start noise that `random` would draw there: the very first one may be given."""
        if self.start is not None and round == index == 0:
            return self.start
        return Recipe(seed=self.seed, round=round, index=index)

    def of(self, recipe: Recipe) -> Sampling:
        """How a recipe is sampled: by the method that it names, or the request's, and guided as it is."""
        by_method = [one for one in (self.sampling, *self.steered, *self.guided) if one.named == recipe.method]
        return next((one for one in by_method if one.guide == recipe.guide), (by_method or [self.sampling])[0])

    def by(self, method: str, *, guided: bool = False) -> Sampling | None:
        """The sampling by a method, guided or not; None if it cannot be had."""
        every = self.guided if guided else (self.sampling, *self.steered)
        return next((one for one in every if one.method.name == method), None)


class State(Schema):
    """Base of an algorithm's state.

    Attributes:
        allowance: what may be spent in all.
        round: tells so far.
        spent: NFE of what was told.
        gradients: that it took.
    """

    allowance: Allowance
    round: int = 0
    spent: int = 0
    gradients: int = Field(0, exclude_if=lambda gradients: not gradients)

    @property
    def left(self) -> int:
        """NFE that may still be spent."""
        return self.allowance.nfe - self.spent

    @property
    def sampling(self) -> Sampling:
        """How trajectories are sampled."""
        return self.allowance.sampling

    def propose(self, index: int, recipe: Recipe, *, known: int = 0, evaluated: bool = False) -> Proposal:
        """Proposal `index` of this round, with its cost."""
        nfe = self.sampling.cost(recipe, known, evaluated=evaluated)
        gradients = self.sampling.gradients(recipe, known)
        return Proposal(
            id=f"{self.round}-{index}", recipe=recipe, known=known, evaluated=evaluated, nfe=nfe, gradients=gradients
        )

    def fresh(self, index: int) -> Recipe:
        """A new start noise, named by this round and `index`."""
        noise = self.allowance.fresh(self.round, index)
        return noise.model_copy(update={"method": self.sampling.named})

    def trajectory(self, index: int) -> Recipe:
        """The same noise, integrated to the end in one go."""
        return self.fresh(index).then(self.sampling.to_end(round=self.round, index=index))


class Scored(Schema):
    """A candidate that a search remembers, with its score.

    Searches keep scores in this form, as an ensemble's scores change when other candidates are seen: `rescored` brings
    them up to date.
    """

    recipe: Recipe
    score: float


S = TypeVar("S", bound=State)


class Search(Protocol[S]):
    """One algorithm.

    Attributes:
        name, title, reference: as `GET /algorithms` shows them.
        stochastic: it needs an SDE sampler: copies of a trajectory must part.
        plain_start: its recipes are counted in steps from a plain noise, so that a moved one is no start for it; it may
            be left out where that is not so.
        exact: how much is spent does not depend on the scores, so that a plan is exact.
        paper: the options that its paper's experiments name, which the preset `paper` stands for.
        Options, State: its options and state. An option that scales with compute is None where a request leaves it
            open: what the budget buys, see `chosen`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    stochastic: ClassVar[bool]
    exact: ClassVar[bool]
    paper: ClassVar[Mapping[str, Any]]
    Options: ClassVar[type[Options]]
    State: ClassVar[type[State]]

    def chosen(self, allowance: Allowance, options: Any) -> Mapping[str, Any]:
        """What the options that were left open come to in the first pass, by name, for plans; empty if none was."""

    def least(self, allowance: Allowance, options: Any) -> int:
        """The smallest `allowance.nfe` that leaves `keep` finished candidates, whatever the scores are."""

    def init(self, allowance: Allowance, options: Any) -> S:
        """The state before the first round; `allowance.nfe` is at least `least`."""

    def ask(self, state: S) -> tuple[Proposal, ...]:
        """The next round's proposals, at most `state.left` NFE; empty when no more fits. Never changes `state`."""

    def tell(self, state: S, proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> S:
        """The state after the round's proposals were evaluated.

        Args:
            state: that the proposals came from, the scores within brought up to date (see `rescored`).
            proposals: what `ask` gave.
            candidates: what became of them, in that order.

        Raises:
            SearchError: the candidates do not answer the proposals.
        """


def extend(state: S, nfe: int) -> S:
    """The state with `nfe` more to spend."""
    allowance = state.allowance.model_copy(update={"nfe": state.allowance.nfe + nfe})
    return state.model_copy(update={"allowance": allowance})


def remembered(value: Any) -> list[Recipe]:
    """The recipes of every `Scored` within a state."""
    if isinstance(value, Scored):
        return [value.recipe]
    if isinstance(value, Schema) and not isinstance(value, Recipe | Allowance):
        value = tuple(getattr(value, name) for name in type(value).model_fields)
    return [recipe for item in value for recipe in remembered(item)] if isinstance(value, tuple) else []


def rescored(value: Any, scores: Mapping[Recipe, float]) -> Any:
    """A state whose every `Scored` has the score that `scores` gives its recipe."""
    if isinstance(value, Scored):
        return value.model_copy(update={"score": scores[value.recipe]})
    if isinstance(value, tuple):
        return tuple(rescored(item, scores) for item in value)
    if isinstance(value, Schema) and not isinstance(value, Recipe | Allowance):
        fields = {name: getattr(value, name) for name in type(value).model_fields}
        changed = {name: rescored(field, scores) for name, field in fields.items()}
        return value.model_copy(update={name: field for name, field in changed.items() if field is not fields[name]})
    return value


def advance(state: S, proposals: Sequence[Proposal], candidates: Sequence[Candidate], **changes: Any) -> S:
    """The next state: round and spending counted, `changes` applied.

    Raises:
        SearchError: `candidates` do not answer `proposals`.
    """
    check_told(proposals, candidates)
    spent = state.spent + sum(candidate.nfe for candidate in candidates)
    gradients = state.gradients + sum(candidate.gradients for candidate in candidates)
    return state.model_copy(update={"round": state.round + 1, "spent": spent, "gradients": gradients, **changes})


def score_of(candidate: Candidate) -> float:
    """The score that selects: searches are told candidates with exactly one."""
    (score,) = candidate.scores.values()
    return score


def scored(candidate: Candidate) -> Scored:
    """A candidate as a search remembers it."""
    return Scored(recipe=candidate.recipe, score=score_of(candidate))


def check_told(proposals: Sequence[Proposal], candidates: Sequence[Candidate]) -> None:
    """Raise SearchError unless `candidates` answer `proposals` one by one, none above its cost."""
    if len(candidates) != len(proposals):
        raise SearchError(f"told {len(candidates)} candidates for {len(proposals)} proposals")
    for proposal, candidate in zip(proposals, candidates, strict=True):
        if candidate.id != proposal.id:
            raise SearchError(f"told candidate {candidate.id!r} where {proposal.id!r} was asked for")
        if candidate.nfe > proposal.nfe:
            raise SearchError(f"candidate {candidate.id!r} took {candidate.nfe} NFE, not the planned {proposal.nfe}")
        if candidate.gradients > proposal.gradients:
            took = f"{candidate.gradients} gradients, not the planned {proposal.gradients}"
            raise SearchError(f"candidate {candidate.id!r} took {took}")
