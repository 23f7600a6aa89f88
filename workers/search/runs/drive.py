"""The one loop that takes a run from its start, or from where its log ends, to its end.

    ask -> make -> score -> tell -> compare -> audit -> log

A diverse result is chosen once the search is over, before a final generation: `recall -> features -> choose -> log`. It
is chosen once: who takes a run over before the choice was logged has the same images to choose among, and nothing was
made of the choice yet; after that the log says what it was. A search that is extended goes on from its own state, as
if nothing had been chosen, and chooses anew at its end; so the images of all that it chose among stay.

What makes, scores and logs is given: this process, a study's engine, or the pools of a cluster. `A` is a batch of
pictures as that executor holds them: `[N, H, W, 3]` uint8, of numpy or of torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from sitsearch.workers.errors import Unsuitable, VerifierInvalid
from sitsearch.workers.jobs.fingerprint import Fingerprint, Origin
from sitsearch.workers.jobs.job import Candidate
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.search.runs.sets import ManyRun
from sitsearch.workers.search.runs.start import Run

A = TypeVar("A", bound=Any)


@dataclass(frozen=True)
class Made(Generic[A]):
    """A round's proposals carried out, in their order.

    Attributes:
        images: `[N, H, W, 3]` uint8; of a data prediction where the recipe ends before t = 1.
        nfe, forwards: what each took.
        nfe_again, forwards_again: spent on all of them besides, on states that were no longer at hand.
        previews: `[N, H, W, 3]` uint8, data predictions on the way, for verifiers that need them.
        gradients: of a verifier, that guided each; empty if none did.
        gradients_again: as `nfe_again`.
        states: `[N, C, H, W]` float32, of those that may guide others, where an executor hands them on.
        broken: of each whether its state is not finite; empty if none is.
        by: what made them; each kind of replica once.
    """

    images: A
    nfe: Sequence[int]
    forwards: Sequence[int]
    nfe_again: int = 0
    forwards_again: int = 0
    previews: A | None = None
    gradients: Sequence[int] = ()
    gradients_again: int = 0
    states: A | None = None
    broken: Sequence[bool] = ()
    by: Sequence[Fingerprint] = ()


class OutOfTime(Exception):
    """The request's seconds were over before a round was made: it is dropped, and what is there is the result."""


class Executor(Protocol[A]):
    """What carries out one run.

    Attributes:
        sets: the selecting verifier judges a candidate by the set that it would join.
        judges: what the verifiers' scores depend on, by their names, as far as it is known.
    """

    sets: bool
    judges: Mapping[str, Fingerprint]

    async def make(self, proposals: Sequence[Proposal]) -> Made[A]:
        """Sample proposals.

        Raises:
            OutOfTime: the request's seconds are over, and there are finished rounds before.
        """

    async def score(
        self, names: Sequence[str], images: A, conditions: Sequence[int], previews: A | None
    ) -> Sequence[Mapping[str, float]]:
        """Scores of images by several verifiers, by their names; `conditions` are places among the request's."""

    async def score_set(self, images: A, chosen: Sequence[A]) -> tuple[Sequence[float], Sequence[A]]:
        """Scores of the set so far with each image added alone, and each image's features `[D]`.

        Args:
            images: `[N, H, W, 3]` uint8.
            chosen: the features of the set so far. They are kept, so each is to have its own memory.
        """

    async def features(self, images: Sequence[A]) -> Sequence[Sequence[float]]:
        """What tells images `[H, W, 3]` apart, `[N, D]`: a verifier's features of length 1, or small pictures."""

    async def recall(self, candidates: Sequence[Candidate]) -> Sequence[A]:
        """The images `[H, W, 3]` of some of `run.kept`, made in earlier rounds.

        Raises:
            SearchError: one is gone.
        """

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, A]]) -> None:
        """A round is told: keep its entry, and of the images those of `run.kept`; `fresh` are the new among them."""


class InMemory(Executor[A]):
    """An executor that holds the images of its run itself.

    Attributes:
        images: of `run.kept`, by candidate id.
    """

    def __init__(self, judges: Mapping[str, Fingerprint] | None = None) -> None:
        self.images: dict[str, A] = {}
        self.judges = dict(judges or {})

    async def recall(self, candidates: Sequence[Candidate]) -> list[A]:
        """See `Executor.recall`."""
        return [self.images[candidate.id] for candidate in candidates]

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, A]]) -> None:
        """See `Executor.log`: nothing but the images is kept."""
        images = self.images | {candidate.id: image for candidate, image in fresh}
        self.images = {candidate.id: images[candidate.id] for candidate in run.kept}


async def drive(run: Run, executor: Executor[A], *, out_of_time: Callable[[], bool] = lambda: False) -> None:
    """Drive a run to its end.

    Args:
        run: fresh, or replayed.
        executor: carries it out; what it raises ends the run where it stands.
        out_of_time: asked before every round whether the request's seconds are over.

    Raises:
        Unsuitable: the budget is to go where single images gain, and the verifier judges sets.
        SearchError: an image that is needed again is gone.
    """
    if executor.sets and run.request.allocation != "uniform":
        raise Unsuitable("allocation", f"must be uniform: {run.request.verifier.name!r} judges sets of images")
    chosen: dict[str, A] = {}
    if executor.sets:  # what the run knew of the set before it was interrupted
        for candidate, image in zip(run.best, await executor.recall(run.best), strict=True):
            _, features = await executor.score_set(image[None], [*chosen.values()])
            chosen[candidate.id] = features[0]
    await executor.recall(run.pool)  # a search that goes on may need them at its end: if one is gone, it is known now
    while (proposals := run.ask(out_of_time=out_of_time())) or run.to_choose:
        if proposals:
            with suppress(OutOfTime):
                chosen = await _round(run, executor, proposals, chosen)
        else:
            run.choose(await executor.features(await executor.recall(run.to_choose)))
            await executor.log(run, run.seal(), ())


async def _round(
    run: Run, executor: Executor[A], proposals: Sequence[Proposal], chosen: Mapping[str, A]
) -> dict[str, A]:
    """Carry out one round; of its images nothing is held when it is over.

    Args:
        run, executor, proposals: whose round, by what, and what it is.
        chosen: of a verifier of sets the features of `run.best`, by candidate id.

    Returns:
        The same after the round.
    """
    request = run.request
    made = await executor.make(proposals)
    features: Sequence[A] = ()
    scores: Sequence[Mapping[str, float]]
    if executor.sets:
        settled = run.settled if isinstance(run, ManyRun) else run.best
        totals, features = await executor.score_set(made.images, [chosen[candidate.id] for candidate in settled])
        scores = [{request.verifier.name: total} for total in totals]
    else:
        wanted = [proposal.condition for proposal in proposals]
        scores = await executor.score(request.verifier.names, made.images, wanted, made.previews)
    scores, invalid = settled_scores(scores, made.broken)
    run.tell(candidates_of(proposals, made.nfe, made.forwards, scores, run, made.gradients, invalid))
    place = {proposal.id: index for index, proposal in enumerate(proposals)}
    if isinstance(run, SearchRun) and (others := run.to_compare):
        images = made.images[[place[candidate.id] for candidate in others]]
        conditions = [candidate.condition for candidate in others]
        rows = await executor.score(request.auditors, images, conditions, None)
        run.compare([dict(row) for row in rows if _finite(row)])
    if (winner := run.to_audit) is not None:
        if winner.id in place:
            image = made.images[place[winner.id]]
        else:  # an ensemble changed its mind: the best so far is of an earlier round
            (image,) = await executor.recall([winner])
        (audits,) = await executor.score(request.auditors, image[None], [winner.condition], None)
        if _finite(audits):
            run.audit(dict(audits))
    asked = (*request.verifier.names, *request.auditors)
    judges = {name: executor.judges[name] for name in asked if name in executor.judges}
    origin = Origin(samplers=tuple(made.by), verifiers=judges) if made.by or judges else None
    await executor.log(run, run.seal(origin), [(c, made.images[place[c.id]]) for c in run.kept if c.id in place])
    return {c.id: features[place[c.id]] if c.id in place else chosen[c.id] for c in run.best} if executor.sets else {}


def settled_scores(
    scores: Sequence[Mapping[str, float]], broken: Sequence[bool] = ()
) -> tuple[list[dict[str, float]], list[bool]]:
    """A round's scores with a number each, and which candidates are invalid: see `Candidate`.

    Args:
        scores: of each candidate, by verifier.
        broken: of each whether there is nothing to score; empty if none is.

    Raises:
        VerifierInvalid: a verifier has no number for any candidate; or every candidate is broken.
    """
    invalid = [bad or not _finite(row) for row, bad in zip(scores, broken or [False] * len(scores), strict=True)]
    if not any(invalid):
        return [dict(row) for row in scores], invalid
    if all(broken):
        raise VerifierInvalid("no candidate of the round is finite: the model's states are not numbers")
    worst = {}
    for name in scores[0]:
        known = [row[name] for row, bad in zip(scores, broken or invalid, strict=True) if not bad]
        finite = [score for score in known or [row[name] for row in scores] if math.isfinite(score)]
        if not finite:
            raise VerifierInvalid(f"verifier {name!r} has no finite score for any candidate of the round")
        worst[name] = min(finite)
    return [
        {name: worst[name] if bad else score for name, score in row.items()}
        for row, bad in zip(scores, invalid, strict=True)
    ], invalid


def _finite(row: Mapping[str, float]) -> bool:
    return all(map(math.isfinite, row.values()))


def candidates_of(
    proposals: Sequence[Proposal],
    nfe: Sequence[int],
    forwards: Sequence[int],
    scores: Sequence[Mapping[str, float]],
    run: Run,
    gradients: Sequence[int] = (),
    invalid: Sequence[bool] = (),
) -> list[Candidate]:
    """What became of a round's proposals, as `run.tell` takes it; no `gradients` are none of each, and so `invalid`."""
    phase, count = run.phase, len(proposals)
    return [
        Candidate(
            id=proposal.id,
            recipe=proposal.recipe,
            nfe=took,
            forwards=rows,
            scores=dict(row),
            phase=phase,
            condition=proposal.condition,
            gradients=guided,
            invalid=bad,
        )
        for proposal, took, rows, row, guided, bad in zip(
            proposals, nfe, forwards, scores, gradients or [0] * count, invalid or [False] * count, strict=True
        )
    ]
