"""Random search: best of N iid noises (Ma et al. 2025, arXiv 2501.09732, section 3.1; the scaling axis is N)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.search import base


class RandomOptions(base.Options):
    """Options of random search."""

    round_size: int = Field(16, ge=1, le=256, description="candidates drawn, scored and logged together")


class RandomState(base.State):
    """Nothing but how far the draw has come: the noises are iid, so scores never steer it."""

    round_size: int


class RandomSearch:
    """Draws N noises from N(0, I), N being all that the budget buys; the runner keeps the best."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random search (best of N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    stochastic: ClassVar[bool] = False
    exact: ClassVar[bool] = True
    paper: ClassVar[Mapping[str, Any]] = {}
    Options: ClassVar[type[base.Options]] = RandomOptions
    State: ClassVar[type[base.State]] = RandomState

    def chosen(self, allowance: base.Allowance, options: RandomOptions) -> Mapping[str, Any]:
        """No option is open."""
        return {}

    def least(self, allowance: base.Allowance, options: RandomOptions) -> int:
        """As many candidates as are wanted."""
        return allowance.keep * allowance.sampling.whole

    def init(self, allowance: base.Allowance, options: RandomOptions) -> RandomState:
        """The state before the first draw."""
        return RandomState(allowance=allowance, round_size=options.round_size)

    def ask(self, state: RandomState) -> tuple[base.Proposal, ...]:
        """The next `round_size` noises, or as many as still fit."""
        count = min(state.round_size, state.left // state.sampling.whole)
        return tuple(state.propose(index, state.trajectory(index)) for index in range(count))

    def tell(
        self, state: RandomState, proposals: Sequence[base.Proposal], candidates: Sequence[Candidate]
    ) -> RandomState:
        """Count the round."""
        return base.advance(state, proposals, candidates)
