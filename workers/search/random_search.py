"""Random search: best of N iid noises (Ma et al. 2025, arXiv 2501.09732, section 3.1; the scaling axis is N)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from workers.jobs.schemas import Candidate, Recipe
from workers.search import base


class RandomOptions(base.Options):
    """Options of random search."""

    round_size: int = Field(16, ge=1, le=256, description="candidates drawn, scored and logged together")


class RandomState(base.State):
    """Nothing but how far the draw has come: the noises are iid, so scores never steer it."""

    allowance: base.Allowance
    round_size: int
    drawn: int = 0


class RandomSearch:
    """Draws N noises from N(0, I), N being all that the budget buys; the runner keeps the best."""

    name: ClassVar[str] = "random"
    title: ClassVar[str] = "Random search (best of N)"
    reference: ClassVar[str] = "Ma et al. 2025, arXiv 2501.09732"
    Options: ClassVar[type[base.Options]] = RandomOptions
    State: ClassVar[type[base.State]] = RandomState

    def init(self, allowance: base.Allowance, options: RandomOptions) -> RandomState:
        """The state before the first draw."""
        return RandomState(allowance=allowance, round_size=options.round_size)

    def ask(self, state: RandomState) -> tuple[base.Proposal, ...]:
        """The next `round_size` noises, or what is left of N."""
        count = min(state.round_size, state.allowance.candidates - state.drawn)
        return tuple(
            base.Proposal(
                id=f"{state.round}-{index}",
                recipe=Recipe(seed=state.allowance.seed, round=state.round, index=index),
                steps=state.allowance.steps,
            )
            for index in range(count)
        )

    def tell(self, state: RandomState, candidates: Sequence[Candidate]) -> RandomState:
        """Count the round."""
        base.check_told(self.ask(state), candidates)
        return state.model_copy(update={"round": state.round + 1, "drawn": state.drawn + len(candidates)})
