"""The best candidates of a run, under scores that may change as more candidates are seen."""

from __future__ import annotations

from collections.abc import Sequence

from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import GenerateRequest
from sitsearch.workers.search import base
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.plan import final
from sitsearch.workers.search.runs.selection import Selection
from sitsearch.workers.search.sampling import Sampling


class Winners:
    """The best of the search and of the final generation, at most `num_images` each.

    Args:
        request: says what selects, and how many are wanted.

    Attributes:
        top: the best candidates of the search so far, best first.
        finals: the best of the final generation, best first.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self._count = request.num_images
        self._selection = Selection(request.verifier)
        self._scores: dict[Recipe, float] = {}
        self.top: tuple[Candidate, ...] = ()
        self.finals: tuple[Candidate, ...] = ()

    def score(self, candidate: Candidate) -> float:
        """What a winner, or a candidate of the last round, selects by now; higher is better."""
        return self._scores[candidate.recipe]

    def see(self, candidates: Sequence[Candidate]) -> None:
        """Take a round's scores, and bring those of the winners up to date."""
        self._selection.add(candidates)
        known = (*self.top, *self.finals, *candidates)
        self._scores = self._selection.scores([candidate.recipe for candidate in known])

    def up_to_date(self, state: base.S) -> base.S:
        """A search's state with the scores that it remembers as they are by now."""
        if self._selection.settled:
            return state
        updated: base.S = base.rescored(state, self._selection.scores(base.remembered(state)))
        return updated

    def add(self, candidates: Sequence[Candidate]) -> None:
        """Let candidates of the search, which were seen, take their places."""
        self.top = self._best_of((*self.top, *candidates))

    def add_final(self, candidates: Sequence[Candidate]) -> None:
        """Let candidates of the final generation, which were seen, take their places."""
        self.finals = self._best_of((*self.finals, *candidates))

    def _best_of(self, candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
        """The best distinct ones; a data prediction is no match for a finished image, whatever its score.

        Python's sort is stable and candidates come in order of proposal: ties go to the earlier one.
        """
        distinct = {c.recipe: c for c in reversed(candidates)}
        ordered = [c for c in candidates if distinct[c.recipe] is c]
        ordered.sort(key=lambda c: (not c.recipe.finished, -self._scores[c.recipe]))
        return tuple(ordered[: self._count])

    def again(self, sampling: Sampling, steps: int, round: int) -> tuple[Proposal, ...]:
        """The winners from the last noise that was put in, at more steps; none that is there already.

        Args:
            sampling: how they were sampled.
            steps: of the final generation.
            round: names the proposals.
        """
        sampling, there = final(sampling, steps), {c.recipe for c in self.finals}
        proposals = []
        for rank, winner in enumerate(self.top):
            start = _last_noised(winner.recipe)
            recipe = start.then(sampling.to_end(start.time))
            if winner.recipe.finished and recipe not in there:
                nfe = sampling.cost(recipe, len(start.ops))
                proposals.append(Proposal(id=f"{round}-final-{rank}", recipe=recipe, known=len(start.ops), nfe=nfe))
        return tuple(proposals)


def _last_noised(recipe: Recipe) -> Recipe:
    """The recipe up to where noise was last put in: what follows is an ODE, which more steps solve better."""
    count = next((i for i in range(len(recipe.ops), 0, -1) if not isinstance(recipe.ops[i - 1], Integrate)), 0)
    return recipe.prefix(count) if count > len(recipe.noise.ops) else recipe.noise
