"""What trajectories cost: the arithmetic of sampling, without a model.

The engine counts what it really evaluates; these counts are what budgets are planned by, and must agree with it.
"""

from __future__ import annotations

from pydantic import Field

from sitsearch.workers.jobs.base import Schema
from sitsearch.workers.jobs.guides import Gradient, Guide
from sitsearch.workers.jobs.offer import SamplerOffer
from sitsearch.workers.jobs.recipe import Integrate, Nudge, Op, Recipe
from sitsearch.workers.jobs.request import SamplerChoice

#: Decimals to which a place on the grid is known.
PLACES = 9
#: What an adaptive method evaluates to choose its first step.
ADAPTIVE_START = 2


class Sampling(Schema):
    """A sampling method as a request set it up: its times, and the field evaluations (NFE) it takes.

    Attributes:
        method: what the method costs a step.
        choice: the request's settings of it.
        named: the method's name where it is not the one that the request names: its recipes say so.
        guide: of its integrations.
    """

    method: SamplerOffer
    choice: SamplerChoice
    named: str | None = None
    guide: Guide | None = Field(None, exclude_if=lambda guide: guide is None)

    @property
    def steps(self) -> int:
        """Steps of a whole trajectory, S."""
        return self.choice.steps

    @property
    def own_last(self) -> float | None:
        """The size of a last step that is not one of the grid's; None where it is, and for methods without one."""
        return self.choice.last_step_size if self.method.ends and self.choice.last_step is not None else None

    def time(self, step: float) -> float:
        """The time after `step` of S steps, on the one grid that whole trajectories and parts of them are sampled on.

        The grid is uniform but for its shift (Esser et al. 2024, arXiv 2403.03206, eq. 23). A last step of its own size
        is the last of the S; the others share what is before it.

        Args:
            step: in [0, S]; between two steps it is as far along.
        """
        if step <= 0 or step >= self.steps:
            return float(step > 0)
        size = self.own_last
        if size is None:
            return self._shifted(step / self.steps)
        if step >= self.steps - 1:
            return 1 - size * (self.steps - step)
        return self._shifted(self._unshifted(1 - size) * step / (self.steps - 1))

    def place(self, t: float) -> float:
        """How many of the S steps lie before time `t`: the inverse of `time`."""
        size = self.own_last
        if size is None:
            place = self.steps * self._unshifted(t)
        elif t >= 1 - size:
            place = self.steps - (1 - t) / size
        else:
            place = (self.steps - 1) * self._unshifted(t) / self._unshifted(1 - size)
        return round(place, PLACES)  # of a time of the grid, exactly the step that led there

    def _shifted(self, progress: float) -> float:
        left = 1 - progress
        return 1 - self.choice.shift * left / (1 + (self.choice.shift - 1) * left)

    def _unshifted(self, t: float) -> float:
        left = 1 - t
        return 1 - left / (self.choice.shift - (self.choice.shift - 1) * left)

    def grid(self, start: float, op: Integrate) -> tuple[float, ...]:
        """The `op.steps + 1` times of an integration from `start`.

        Between two times of the whole trajectory's grid, with as many steps as lie between them, these are just its
        own: a trajectory that is cut is the trajectory that is not.
        """
        first, last, steps = self.place(start), self.place(op.to), op.steps
        end: tuple[float, ...] = (op.to,)
        if self.own_last is not None and op.to == 1 and steps > 1 and first < self.steps - 1:
            last, steps, end = self.steps - 1.0, steps - 1, (self.time(self.steps - 1), 1.0)
        between = (self.time(first + (last - first) * step / steps) for step in range(1, steps))
        return (start, *between, *end)

    def steps_between(self, start: float, end: float) -> int:
        """Steps from one time to another at the density of the whole trajectory; at least 1."""
        return max(1, round(self.place(end) - self.place(start)))

    @property
    def whole(self) -> int:
        """NFE of a whole trajectory; the most it can be, if the method is adaptive."""
        return self.cost(Recipe(seed=0, round=0, index=0).then(self.to_end()))

    def to_end(self, start: float = 0.0, *, round: int = 0, index: int = 0) -> Integrate:
        """The operation that finishes a trajectory from time `start`."""
        return self.integrate(1.0, self.steps_between(start, 1.0), round=round, index=index)

    def integrate(
        self, to: float, steps: int, *, round: int = 0, index: int = 0, nudges: tuple[Nudge, ...] = ()
    ) -> Integrate:
        """The operation that goes on to time `to` in so many steps."""
        return Integrate(to=to, steps=steps, round=round, index=index, nudges=nudges, guide=self.guide)

    def guided_steps(self, start: float, op: Integrate) -> tuple[int, ...]:
        """The steps of an integration from `start` that are guided, counted from its first, 0.

        Which of a grid's steps these are does not depend on where a trajectory is cut.
        """
        if op.guide is None:
            return ()
        (low, high), every = op.guide.interval, getattr(op.guide, "every", 1)
        times = [round(t, PLACES) for t in self.grid(start, op)[:-1]]
        return tuple(step for step, t in enumerate(times) if low <= t <= high and round(self.place(t)) % every == 0)

    def gradients(self, recipe: Recipe, known: int = 0) -> int:
        """Gradients of a verifier that a candidate takes; see `cost`."""
        starts = [recipe.prefix(position).time for position in range(known, len(recipe.ops))]
        return sum(
            len(self.guided_steps(start, op))
            for start, op in zip(starts, recipe.ops[known:], strict=True)
            if isinstance(op, Integrate) and isinstance(op.guide, Gradient)
        )

    @property
    def gradients_whole(self) -> int:
        """Gradients of a verifier that a whole trajectory takes."""
        return self.gradients(Recipe(seed=0, round=0, index=0).then(self.to_end()))

    def segment(self, op: Integrate) -> int:
        """NFE of one integration, when nothing of it is known before."""
        per_step = self.method.evaluations_per_step * (self.choice.inner if self.method.inner else 1)
        if self.method.adaptive:
            return ADAPTIVE_START + per_step * op.steps
        if self._ends(op):
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
        return (self._ends(op) and op.steps == 1) or not self.method.noise_first

    def _ends(self, op: Integrate) -> bool:
        """Its last step is the trajectory's, which adds no noise."""
        return self.method.ends and op.to == 1.0 and self.choice.last_step is not None
