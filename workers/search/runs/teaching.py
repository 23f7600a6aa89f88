"""What a search that has ended teaches, see `sitsearch.workers.search.lessons`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sitsearch.workers.jobs.request import StopRules
from sitsearch.workers.search.algorithms.auto import AutoState, Tried
from sitsearch.workers.search.bests import expected_best, mean_best
from sitsearch.workers.search.calibration import CalibratedState
from sitsearch.workers.search.lessons.priors import as_it_comes
from sitsearch.workers.search.lessons.record import BEYOND, MOST_GAIN, Drawn, Lesson, Sums
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.start import Run
from sitsearch.workers.search.runs.target import drawn

#: Random candidates of a search without which they tell nothing.
LEAST_DRAWN = 8


def lesson_of(run: Run) -> Lesson | None:
    """What a run that is over teaches; None where it is not to be compared with others.

    That is of many conditions, each of which has few candidates; of an ensemble, whose scores are relative; where stop
    rules look at scores, as a search that ends once it is lucky was lucky; where the sampler chooses its steps, so that
    NFE do not tell how many trajectories they buy; and where all trajectories are guided by a verifier.
    """
    request = run.request
    if not isinstance(run, SearchRun) or request.verifier.members is not None or request.stop != StopRules():
        return None
    if run.sampling.method.adaptive or (request.gradient is not None and request.search.algorithm != "auto"):
        return None
    finished, whole = run.finished, run.sampling.whole
    trajectories = (run.usage.nfe_search + run.usage.nfe_finish) // whole
    if not finished or trajectories < 1:
        return None
    random = [score for recipe, score in finished.items() if drawn(recipe, run.sampling.steps)]
    state, found = run.state, max(finished.values())
    tried = state.tried if isinstance(state, AutoState) else ()
    return Lesson(
        model=request.model,
        verifier=request.verifier.name,
        algorithm=request.search.algorithm,
        trajectories=trajectories,
        found=found,
        drawn=drawn_of(random),
        gain=None if request.search.algorithm == "random" else gain_of(found, random, trajectories),
        own_options=not as_it_comes(request.search),
        arms={arm.arm: gains for arm in tried if (gains := _gains(arm, random, whole)).n},
        marks=state.known.marks if isinstance(state, CalibratedState) else (),
    )


def drawn_of(scores: Sequence[float]) -> Drawn | None:
    """The statistics of random candidates; None of fewer than `LEAST_DRAWN`."""
    if len(scores) < LEAST_DRAWN:
        return None
    ordered = sorted(scores, reverse=True)
    squared, mean = [score * score for score in ordered], statistics.fmean(ordered)
    sizes = [2**power for power in range(len(ordered).bit_length())]
    return Drawn(
        count=len(ordered),
        mean=mean,
        squares=math.fsum((score - mean) ** 2 for score in ordered),
        best=tuple((mean_best(size, ordered), mean_best(size, squared)) for size in sizes),
    )


def gain_of(best: float, drawn: Sequence[float], trajectories: int) -> float | None:
    """How much a score is above the best that random search is expected to find, in standard deviations of its scores.

    Args:
        best: the score.
        drawn: of random candidates of the same search.
        trajectories: that random search would have drawn.

    Returns:
        At most `MOST_GAIN` either way; None where the candidates are too few, a quarter of the trajectories or less, or
        all alike.
    """
    if len(drawn) < max(LEAST_DRAWN, trajectories / 2**BEYOND):
        return None
    spread = statistics.stdev(drawn)
    if spread <= 0:
        return None
    gain = (best - expected_best(drawn, max(1, trajectories))) / spread
    return max(-MOST_GAIN, min(MOST_GAIN, gain))


def _gains(arm: Tried, drawn: Sequence[float], whole: int) -> Sums:
    """Of the passes of an arm."""
    gains = (gain_of(best, drawn, round(nfe / whole)) for best, nfe in zip(arm.found, arm.nfe, strict=True))
    return Sums.of(gain for gain in gains if gain is not None)
