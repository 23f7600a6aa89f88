"""What trajectories cost: the arithmetic of sampling, without a model.

The engine counts what it really evaluates; these counts are what budgets are planned by, and must agree with it.
"""

from __future__ import annotations

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Integrate, Op, Recipe
from sitsearch.workers.jobs.request import SamplerChoice

#: What an adaptive method evaluates to choose its first step.
ADAPTIVE_START = 2


class Sampling(Schema):
    """A sampling method as a request set it up: its times, and the field evaluations (NFE) it takes.

    Attributes:
        method: what the method costs a step.
        choice: the request's settings of it.
    """

    method: SamplerOffer
    choice: SamplerChoice

    @property
    def steps(self) -> int:
        """Steps of a whole trajectory, S."""
        return self.choice.steps

    def time(self, step: int) -> float:
        """The time after `step` of S steps on the shifted grid (Esser et al. 2024, arXiv 2403.03206, eq. 23)."""
        if step in (0, self.steps):
            return float(step == self.steps)
        left = 1 - step / self.steps
        return 1 - self.choice.shift * left / (1 + (self.choice.shift - 1) * left)

    def progress(self, t: float) -> float:
        """The fraction of a trajectory's steps that lies before time `t`: the inverse of the shift."""
        left = 1 - t
        return 1 - left / (self.choice.shift - (self.choice.shift - 1) * left)

    def steps_between(self, start: float, end: float) -> int:
        """Steps from one time to another at the density of the whole trajectory; at least 1."""
        return max(1, round(self.steps * (self.progress(end) - self.progress(start))))

    @property
    def whole(self) -> int:
        """NFE of a whole trajectory; the most it can be, if the method is adaptive."""
        return self.cost(Recipe(seed=0, round=0, index=0).then(self.to_end()))

    def to_end(self, start: float = 0.0, *, round: int = 0, index: int = 0) -> Integrate:
        """The operation that finishes a trajectory from time `start`."""
        return Integrate(to=1.0, steps=self.steps_between(start, 1.0), round=round, index=index)

    def segment(self, op: Integrate) -> int:
        """NFE of one integration, when nothing of it is known before."""
        per_step = self.method.evaluations_per_step
        if self.method.adaptive:
            return ADAPTIVE_START + per_step * op.steps
        if self.method.stochastic and op.to == 1.0 and (self.choice.last_step is not None or op.steps == 1):
            return (op.steps - 1) * per_step + 1  # the last step adds no noise and takes one evaluation
        return op.steps * per_step

    def cost(self, recipe: Recipe, known: int = 0, *, evaluated: bool = False) -> int:
        """NFE of a candidate.

        Args:
            recipe: the candidate's; it costs one evaluation more, its data prediction, when it ends before t = 1.
            known: operations at its front whose result is at hand.
            evaluated: the field was evaluated there too, so that the next step need not evaluate it again.
        """
        total = 0
        for position, op in enumerate(recipe.ops[known:]):
            if isinstance(op, Integrate):
                total += self.segment(op)
                if position == 0 and evaluated and self.reuses(op):
                    total -= 1
        preview = not recipe.finished and not (evaluated and known == len(recipe.ops))
        return total + preview

    def reuses(self, op: Op) -> bool:
        """An evaluation at the state where `op` begins is its first evaluation."""
        if not isinstance(op, Integrate):
            return False
        last_only = self.method.stochastic and op.to == 1.0 and op.steps == 1
        return last_only or not self.method.noise_first
