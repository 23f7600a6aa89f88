"""Lookahead guidance: cheap samples whose scores are known guide the trajectories that come after them.

LiDAR (arXiv 2602.03211) draws n samples in few steps, scores them, and follows the gradient of the expected reward that
they make known in closed form (see `Lookahead`). It needs neither a gradient of the verifier nor a further call of it
on the way, so that any verifier will do. Here every image that was guided is scored and joins the samples, which makes
the search anytime: the more it has seen, the better it guides.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from sitsearch.workers.jobs.guides import LATEST, Lookahead
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Recipe, Reference
from sitsearch.workers.search import base

#: Of the budget, what the first samples take where the request leaves their number open; and how many they are at most.
PART, MOST_SAMPLES = 0.5, 128
#: Steps of a sample, of a whole trajectory's.
FEW = 0.3
#: Samples without which nothing is guided.
LEAST_SAMPLES = 4
#: References that guide, at most: the first of them.
MOST_REFERENCES = 256
#: Rewards are standardised, and kept within these bounds.
MOST_REWARD = 8.0
#: Candidates that are proposed together.
ROUND_SIZE = 16


class LookaheadOptions(base.Options):
    """Options of lookahead guidance."""

    samples: int | None = Field(
        None, ge=LEAST_SAMPLES, le=MOST_SAMPLES, description="few-step samples; null: what half the budget buys"
    )
    steps: int | None = Field(None, ge=1, le=1000, description="steps of these; null: 0.3 of a trajectory's")
    weight: float = Field(4.0, ge=0, le=100, description="lambda, of a standard deviation of the samples' scores")
    strength: float = Field(1.0, ge=0, le=10, description="s, what the guidance is multiplied by")
    temperature: float = Field(0.1, gt=0, le=100, description="of the distances to samples, in numbers of a state")
    until: float = Field(0.8, ge=0, le=LATEST, description="time after which nothing is guided")


class LookaheadState(base.State):
    """A search under way.

    Attributes:
        samples: few-step samples of the whole search; none where they would leave no room for what they guide.
        sampled: scores of those so far.
        references: all that was finished, in order, as far as it guides.
    """

    options: LookaheadOptions
    samples: int
    sampled: tuple[float, ...] = ()
    references: tuple[Reference, ...] = ()


class LookaheadSearch:
    """Few-step samples, then trajectories that they guide, round by round."""

    name: ClassVar[str] = "lookahead"
    title: ClassVar[str] = "Lookahead guidance"
    reference: ClassVar[str] = "arXiv 2602.03211"
    stochastic: ClassVar[bool] = False
    plain_start: ClassVar[bool] = True
    exact: ClassVar[bool] = True
    steers: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = LookaheadOptions
    State: ClassVar[type[base.State]] = LookaheadState

    def chosen(self, allowance: base.Allowance, options: LookaheadOptions) -> Mapping[str, Any]:
        """The number of samples, and their steps."""
        return {"samples": self.init(allowance, options).samples, "steps": _steps(allowance, options)}

    def least(self, allowance: base.Allowance, options: LookaheadOptions) -> int:
        """As many plain trajectories as are wanted."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: LookaheadOptions) -> LookaheadState:
        """The state before the first sample."""
        sampling = allowance.sampling
        few = sampling.integrate(1.0, _steps(allowance, options))
        each = sampling.cost(Recipe(seed=0, round=0, index=0).then(few))
        room = (allowance.nfe - allowance.keep * sampling.whole) // each
        count = min(room, options.samples or min(MOST_SAMPLES, int(PART * allowance.nfe) // each))
        return LookaheadState(allowance=allowance, options=options, samples=count if count >= LEAST_SAMPLES else 0)

    def ask(self, state: LookaheadState) -> tuple[base.Proposal, ...]:
        """The next samples; once they are there, the next trajectories."""
        wanted = state.samples - len(state.sampled)
        if wanted > 0:
            few = _steps(state.allowance, state.options)
            recipes = [
                state.fresh(index).then(state.sampling.integrate(1.0, few, round=state.round, index=index))
                for index in range(min(wanted, ROUND_SIZE))
            ]
        else:
            recipes = [_guided(state, index) for index in range(min(ROUND_SIZE, state.left // state.sampling.whole))]
        return tuple(
            state.propose(index, recipe).model_copy(
                update={"revisited": True, "references": state.references if recipe.guided else ()}
            )
            for index, recipe in enumerate(recipes)
        )

    def tell(
        self, state: LookaheadState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> LookaheadState:
        """Let what was finished guide what comes after."""
        told = base.advance(state, proposals, candidates)
        scores, before = [base.score_of(candidate) for candidate in candidates], state.sampled
        sampled = (*before, *scores) if len(before) < state.samples else before
        rewards = [one.reward for one in state.references]
        if len(before) < len(sampled):  # standardised anew with every round of samples, and never after
            rewards = []
            scores = list(sampled)
        rewards += _standard(scores, sampled)
        recipes = [*(one.recipe for one in state.references), *(candidate.recipe for candidate in candidates)]
        references = [Reference(recipe=recipe, reward=reward) for recipe, reward in zip(recipes, rewards, strict=True)]
        return told.model_copy(update={"sampled": sampled, "references": tuple(references[:MOST_REFERENCES])})


def _steps(allowance: base.Allowance, options: LookaheadOptions) -> int:
    """Steps of a sample."""
    return options.steps or max(2, round(FEW * allowance.sampling.steps))


def _guided(state: LookaheadState, index: int) -> Recipe:
    """A fresh trajectory that all references so far guide."""
    options, count = state.options, len(state.references)
    plain = state.trajectory(index)
    if not state.samples:
        return plain
    guide = Lookahead(
        references=count,
        weight=options.weight,
        strength=options.strength,
        temperature=options.temperature,
        interval=(0.0, options.until),
    )
    (whole,) = plain.ops
    return plain.model_copy(update={"ops": (whole.model_copy(update={"guide": guide}),)})


def _standard(scores: Sequence[float], sampled: Sequence[float]) -> list[float]:
    """Rewards: scores in standard deviations of the samples' scores above their mean, within bounds."""
    if not sampled:
        return [0.0] * len(scores)
    mean, unit = statistics.fmean(sampled), statistics.pstdev(sampled) or 1.0
    return [max(-MOST_REWARD, min(MOST_REWARD, (score - mean) / unit)) for score in scores]
