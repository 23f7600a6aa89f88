"""The best candidates of a run, under scores that may change as more candidates are seen."""

from __future__ import annotations

from collections.abc import Sequence

from sitsearch.workers.errors import SearchError
from sitsearch.workers.jobs.job import Candidate, Choice, Estimate
from sitsearch.workers.jobs.recipe import Integrate, Op, Recipe
from sitsearch.workers.jobs.request import MAX_POOL, POOL_PER_IMAGE, GenerateRequest, StopRules
from sitsearch.workers.search import base
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.plan import final
from sitsearch.workers.search.runs.selection import Selection
from sitsearch.workers.search.sampling import PLACES, Sampling

#: Candidates that are held besides the best where scores still change: one of them may turn out to be better.
SPARE = 16


class Winners:
    """The best of the search and of the final generation, at most `num_images` each.

    Args:
        request: says what selects, and how many are wanted.
        allowance: says how they are sampled.

    Attributes:
        top: the best candidates of the search so far, best first.
        held: the same, and those that could yet take their place, or be chosen for a diverse result.
        finals: the best of the final generation, best first.
        choice, chosen: how a diverse result was chosen, and the candidates, best first; None and empty before that.
    """

    def __init__(self, request: GenerateRequest, allowance: base.Allowance) -> None:
        self._count, self._allowance = request.num_images, allowance
        #: Candidates come from fresh noise alone, and their scores do not tell when to stop.
        self._independent = request.search.algorithm == "random" and request.stop == StopRules()
        self._selection = Selection(request.verifier)
        self._scores: dict[Recipe, float] = {}
        self._pool = min(MAX_POOL, POOL_PER_IMAGE * self._count) if request.diversity else self._count
        self._most = self._pool + (0 if self._selection.settled else SPARE)
        self._final_steps = request.sampler.final_steps
        self.top: tuple[Candidate, ...] = ()
        self.held: tuple[Candidate, ...] = ()
        self._regenerated: set[Recipe] = set()
        self.finals: tuple[Candidate, ...] = ()
        self.choice: Choice | None = None
        self.chosen: tuple[Candidate, ...] = ()

    @property
    def pool(self) -> tuple[Candidate, ...]:
        """The finished candidates that a diverse result is chosen among, best first."""
        return tuple(candidate for candidate in self.held[: self._pool] if candidate.recipe.finished)

    def choose(self, choice: Choice | None) -> None:
        """Let the final generation be of the candidates that were chosen; None for the best by score again.

        What it made of others is dropped once there is a choice.

        Raises:
            SearchError: one of them is not in the pool.
        """
        pool = {candidate.id: candidate for candidate in self.pool}
        ids = () if choice is None else choice.ids
        if strange := [name for name in ids if name not in pool]:
            raise SearchError(f"candidate {strange[0]!r} was chosen, and is not among the {len(pool)} best")
        self.choice, self.chosen = choice, tuple(pool[name] for name in ids)
        if choice is not None and self._final_steps is not None:
            wanted = {self._once_more(winner, self._final_steps) for winner in self.chosen}
            self.finals = tuple(candidate for candidate in self.finals if candidate.recipe in wanted)

    def score(self, candidate: Candidate) -> float:
        """What a winner, or a candidate of the last round, selects by now; higher is better."""
        return self._scores[candidate.recipe]

    def estimate(self) -> Estimate | None:
        """What the best score of the search is worth; None where it cannot be told."""
        return self._selection.estimate(independent=self._independent, besides=self._regenerated)

    @property
    def finished(self) -> dict[Recipe, float]:
        """Scores of the finished images of the search, by recipe, in the order in which they came."""
        return self._selection.scores(self._selection.finished(self._regenerated))

    def see(self, candidates: Sequence[Candidate]) -> None:
        """Take a round's scores, and bring those of the winners up to date."""
        self._selection.add(candidates)
        known = (*self.held, *self.finals, *candidates)
        self._scores = self._selection.scores([candidate.recipe for candidate in known])

    def up_to_date(self, state: base.S) -> base.S:
        """A search's state with the scores that it remembers as they are by now."""
        if self._selection.settled:
            return state
        updated: base.S = base.rescored(state, self._selection.scores(base.remembered(state)))
        return updated

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Let candidates of the search, which were seen, take their places."""
        self.held = self._best_of((*self.held, *candidates))
        self.top = self.held[: self._count]

    def add_final(self, candidates: Sequence[Candidate]) -> None:
        """Let candidates of the final generation, which were seen, take their places."""
        self._regenerated |= {candidate.recipe for candidate in candidates}
        self.finals = self._best_of((*self.finals, *candidates))[: self._count]

    def _best_of(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The best distinct ones; a data prediction is no match for a later one, nor for a finished image.

        The nearer to t = 1, the less of a guess it is. Python's sort is stable and candidates come in order of
        proposal: ties go to the earlier one. Those that could not be scored come last.
        """
        distinct: dict[Recipe, Candidate] = {}
        for candidate in candidates:
            distinct.setdefault(self._trajectory(candidate.recipe), candidate)
        ordered = list(distinct.values())
        ordered.sort(key=lambda c: (c.invalid, -round(c.recipe.time, PLACES), -self._scores[c.recipe]))
        return tuple(ordered[: self._most])

    def _trajectory(self, recipe: Recipe) -> Recipe:
        """The same for all recipes of one image: what draws no noise, no draw tells apart, nor where it is cut."""
        ops: list[Op] = []
        sampling = self._allowance.of(recipe)
        for op in recipe.ops:
            if isinstance(op, Integrate) and not _draws(op, sampling):
                op = op.model_copy(update={"round": 0, "index": 0})
                if ops and isinstance(last := ops[-1], Integrate) and not _draws(last, sampling):
                    op = op.model_copy(update={"steps": last.steps + op.steps})
                    ops.pop()
            ops.append(op)
        return recipe.model_copy(update={"ops": tuple(ops)})

    def again(self, steps: int, round: int) -> tuple[Proposal, ...]:
        """The winners from the last noise that was put in, at more steps; none that is there already.

        Args:
            steps: of the final generation.
            round: names the proposals.
        """
        sampling, there = final(self._allowance.sampling, steps), {c.recipe for c in self.finals}
        proposals = []
        for rank, winner in enumerate(self.chosen or self.top):
            recipe, known = self._once_more(winner, steps), len(_last_noised(winner.recipe).ops)
            if winner.recipe.finished and recipe not in there:
                nfe = sampling.cost(recipe, known)
                taken = sampling.gradients(recipe, known)
                proposals.append(
                    Proposal(id=f"{round}-final-{rank}", recipe=recipe, known=known, nfe=nfe, gradients=taken)
                )
        return tuple(proposals)

    def _once_more(self, winner: Candidate, steps: int) -> Recipe:
        """The recipe of a winner's final generation."""
        start = _last_noised(winner.recipe)
        return start.then(final(self._allowance.sampling, steps).to_end(start.time))


def _draws(op: Integrate, sampling: Sampling) -> bool:
    """Noise is drawn on the way: all of an SDE's steps draw it but the trajectory's last."""
    method, choice = sampling.method, sampling.choice
    last = method.ends and choice.last_step is not None and op.to == 1 and op.steps == 1
    return method.stochastic and not last


def _last_noised(recipe: Recipe) -> Recipe:
    """The recipe up to where noise was last put in: what follows is an ODE, which more steps solve better."""
    count = next((i for i in range(len(recipe.ops), 0, -1) if not isinstance(recipe.ops[i - 1], Integrate)), 0)
    return recipe.prefix(count) if count > len(recipe.noise.ops) else recipe.noise
