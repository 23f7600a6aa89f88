"""How far a search is from its target: what one more candidate's chance to reach it comes to in NFE.

An estimate is made of independent candidates: start noises that went to t = 1 in one go, by the request's own method.
(A trajectory that was looked at midway goes on because it promises much, and is no such draw.) Each of them scores s
and reaches the target with the same probability p = P(s >= target), so that how many it takes is geometric: 1 / p in
the mean, and at most log(1 - c) / log(1 - p) with confidence c.

As long as none of n reached the target, p is the tail of a normal with their mean and standard deviation, but no more
than goes with that none did: 1 - 0.05^(1/n), about 3 / n, the upper bound of confidence 0.95 whatever the distribution.
Once some did, several of one round perhaps, p is their share.

What this does not know: the tail beyond the best score is the normal's, so that a target above a ceiling of the scores
seems to be in reach, and one in a heavy tail seems farther than it is; mean and deviation of few scores are uncertain
themselves, which the confidence leaves out of account; and a search that adapts is expected to need less than draws do.

Where fewer than `LEAST` such candidates were seen, all finished images of the search are taken instead, at the NFE that
they took in the mean. They depend on one another and get better as it goes on: the bound does not hold of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from sitsearch.workers.jobs.job import Candidate, TargetProgress
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import MAX_NFE, Target
from sitsearch.workers.search.runs.allocation import Seen

#: Scores from which on there is an estimate.
LEAST = 8
#: Probabilities below this are none: no budget comes near.
TINY = 1e-15
#: A probability at which none of those seen would have reached the target so seldom is too high.
SELDOM = 0.05


class Aim:
    """The scores of a search so far, by their moments, and what they say of its target.

    Args:
        target: the request's.
        steps: of a whole trajectory.
    """

    def __init__(self, target: Target, steps: int) -> None:
        self._target, self._steps = target, steps
        self._drawn = self._finished = Seen()
        self._reached = 0  # of those drawn
        self._nfe = 0

    def see(self, scored: Iterable[tuple[Candidate, float]]) -> None:
        """Take candidates of the search, each with the score that it selects by."""
        for candidate, score in scored:
            self._nfe += candidate.nfe
            if candidate.recipe.finished:
                self._finished = self._finished.told(score, candidate.nfe, keep=0)
            if drawn(candidate.recipe, self._steps):
                self._drawn = self._drawn.told(score, candidate.nfe, keep=0)
                self._reached += score >= self._target.score

    def progress(self, best: float | None, left: int) -> TargetProgress:
        """Where the search stands.

        Args:
            best: the best score of a finished candidate.
            left: NFE that the search may still spend.
        """
        score, confidence = self._target.score, self._target.confidence
        independent = self._drawn.count >= LEAST or self._finished.count < LEAST
        seen = self._drawn if independent else self._finished
        found = TargetProgress(
            score=score,
            confidence=confidence,
            reached=best is not None and best >= score,
            sample="random" if independent else "finished",
            seen=seen.count,
            nfe_left=left,
        )
        if found.reached:
            return found.model_copy(update={"nfe_expected": 0, "nfe_confident": 0, "probability_left": 1.0})
        if seen.count < LEAST:
            return found
        p = probability(seen, score, reached=self._reached, independent=independent)
        if p is None:
            return found
        each = (seen.nfe if independent else self._nfe) / seen.count
        return found.model_copy(
            update={
                "probability": p,
                "nfe_expected": _at_most(each / p),
                "nfe_confident": _at_most(each * draws(p, confidence)),
                "probability_left": reached_within(p, left // each),
            }
        )


def drawn(recipe: Recipe, steps: int) -> bool:
    """It is as `random` draws: of so many steps from fresh noise to the end, by the request's own method, unguided."""
    if recipe.method is not None or len(recipe.ops) != 1:
        return False
    (op,) = recipe.ops
    return isinstance(op, Integrate) and op.to == 1 and op.steps == steps and not op.nudges and op.guide is None


def probability(seen: Seen, target: float, *, reached: int, independent: bool) -> float | None:
    """P(score >= target) of one candidate; see the module. None if it is below `TINY`.

    Args:
        seen: moments of the scores.
        target: a score.
        reached: how many of independent candidates reached it.
        independent: they are independent draws.
    """
    if independent and reached:
        return reached / seen.count
    sd = math.sqrt(seen.squares / (seen.count - 1))
    if sd == 0:
        return None
    tail = math.erfc((target - seen.mean) / (sd * math.sqrt(2))) / 2
    p = min(tail, 1 - SELDOM ** (1 / seen.count)) if independent else tail
    return p if p >= TINY else None


def draws(p: float, confidence: float) -> int:
    """The candidates among which one reaches the target with this confidence: `log(1 - c) / log(1 - p)`."""
    return 1 if p >= confidence else math.ceil(math.log1p(-confidence) / math.log1p(-p))


def reached_within(p: float, draws: float) -> float:
    """The probability that one of so many candidates reaches the target."""
    return -math.expm1(draws * math.log1p(-p)) if p < 1 else float(draws > 0)


def _at_most(nfe: float) -> int | None:
    """Whole NFE; None where no budget is so large."""
    return math.ceil(nfe) if nfe <= MAX_NFE else None


def missed(progress: TargetProgress, best: float | None) -> str:
    """That a search ended before it reached its target, in a sentence: how far it came, and what is still expected."""
    text = f"the target {progress.score:g} was not reached: "
    text += "no image was finished" if best is None else f"the best score is {best:.6g}"
    if progress.probability is None:
        few = f"of fewer than {LEAST} candidates it cannot be told what it takes"
        return f"{text}; {few if progress.seen < LEAST else 'it is out of reach of all that was seen'}"
    kind = "random candidates" if progress.sample == "random" else "finished images"
    needed = "more NFE than any budget has are"
    if progress.nfe_expected is not None:
        needed = f"about {progress.nfe_expected:,} NFE more are"
    text += f"; by its {progress.seen:,} {kind}, {needed} expected to be needed"
    if progress.nfe_confident is not None:
        text += f", {progress.nfe_confident:,} with confidence {progress.confidence:g}"
    return text
