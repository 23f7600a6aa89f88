"""Many searches at once on one engine, their pictures scored together."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.judge import telling_features
from sitsearch.workers.engine.orders import Order, orders_of
from sitsearch.workers.engine.trajectory import made_of
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.drive import InMemory, Made, drive
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.studies.comparison.tasks import Asked


@dataclass(frozen=True)
class Pictures:
    """Pictures `[N, H, W, 3]` uint8 to be scored."""

    images: Tensor


class Awaited:
    """What a search waits for: orders to be sampled, or pictures to be scored. Awaiting it gives what came of it."""

    def __init__(self, wanted: list[Order] | Pictures) -> None:
        self.wanted = wanted

    def __await__(self) -> Generator[Awaited, Any, Any]:
        return (yield self)


class Case(InMemory[Tensor]):
    """One search under way, which stops where it needs the engine or the verifier that it shares with others.

    Args:
        asked: what it searches for.
        seed: its number among the searches for it.
        run: the search.
        job: the name of its states in the engine, which no other search's may be.

    Attributes:
        nfe_again: evaluations of states that were no longer at hand, which no budget counts.
    """

    sets = False

    def __init__(self, asked: Asked, seed: int, run: SearchRun, job: str) -> None:
        super().__init__()
        self.asked, self.seed, self.search, self.job = asked, seed, run, job
        self.nfe_again = 0
        self._course = drive(run, self)

    @property
    def picture(self) -> Tensor:
        """The winner so far, `[H, W, 3]` uint8."""
        return self.images[self.search.best[0].id]

    def go_on(self, answer: Any) -> list[Order] | Pictures | None:
        """Give the search what it waited for (at first None); what it waits for next, or None at its end."""
        try:
            awaited: Awaited = self._course.send(answer)
        except StopIteration:
            return None
        return awaited.wanted

    async def make(self, proposals: Sequence[Proposal]) -> Made[Tensor]:
        """See `Executor.make`."""
        orders = orders_of(proposals, self.search.request.sampler, [self.asked.condition])
        made = made_of(await Awaited(orders))
        self.nfe_again += made.nfe_again
        return made

    async def score(
        self, names: Sequence[str], images: Tensor, conditions: Sequence[int], previews: Tensor | None
    ) -> list[dict[str, float]]:
        """See `Executor.score`: there is one verifier."""
        (name,) = names
        return [{name: score} for score in await Awaited(Pictures(images))]

    async def score_set(self, images: Tensor, chosen: Sequence[Tensor]) -> tuple[list[float], list[Tensor]]:
        """See `Executor.score_set`: each search is for one condition."""
        raise AssertionError("a comparison judges no sets")

    async def features(self, images: Sequence[Tensor]) -> list[list[float]]:
        """See `Executor.features`: of pictures, as the verifier scores those of many searches together."""
        return telling_features(None, torch.stack(list(images)), batch=len(images))


def run_together(engine: Engine, selector: Scorer, cases: Iterable[Case]) -> Iterator[Case]:
    """Run searches to their ends, all at once; yields each as it ends.

    Args:
        engine: that they share; nobody else uses it meanwhile.
        selector: the verifier that selects in all of them.
        cases: fresh ones.
    """
    ready: list[tuple[Case, Any]] = [(case, None) for case in cases]
    sampling: dict[int, Case] = {}
    scoring: list[tuple[Case, Tensor]] = []
    while ready or sampling or scoring:
        for case, answer in ready:
            wanted = case.go_on(answer)
            if wanted is None:
                yield case
            elif isinstance(wanted, Pictures):
                scoring.append((case, wanted.images))
            else:
                sampling[engine.submit(case.job, wanted)] = case
        # Scoring one submission at a time would leave the verifier's batches empty.
        if scoring and (sum(len(images) for _, images in scoring) >= selector.batch or not engine.busy):
            ready, scoring = _scored(selector, scoring), []
        else:
            ready = [(sampling.pop(done.ticket), done.samples) for done in engine.step()]


def _scored(selector: Scorer, scoring: Sequence[tuple[Case, Tensor]]) -> list[tuple[Case, Any]]:
    """Each case with its scores, all scored together."""
    conditions = [case.asked.condition for case, images in scoring for _ in images]
    scores = iter(selector.score(torch.cat([images for _, images in scoring]), conditions))
    return [(case, list(islice(scores, len(images)))) for case, images in scoring]
