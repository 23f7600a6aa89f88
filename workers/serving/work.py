"""The work on one job: its run, carried out by the sampler and verifier pools, and logged round by round."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np
from ray.exceptions import RayTaskError
from ray.serve.handle import DeploymentHandle

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.engine.orders import conditions_of, orders_of
from sitsearch.workers.errors import SearchError, UnknownName
from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.images import decode_png, encode_png, encode_thumbnail
from sitsearch.workers.jobs.job import Candidate, Job, Result, Round, StopReason, Usage
from sitsearch.workers.jobs.logged import LoggedRound
from sitsearch.workers.jobs.offer import ModelOffer, Offer, SamplerOffer, VerifierOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.shown import MANY, shown
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.search.algorithms.lookahead import MOST_REFERENCES
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.lessons.record import Lesson
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.drive import Executor, Made, OutOfTime, drive
from sitsearch.workers.search.runs.start import Run, start_run
from sitsearch.workers.search.runs.teaching import lesson_of
from sitsearch.workers.serving.affinity import Slots, key_of
from sitsearch.workers.serving.parts import in_order, together
from sitsearch.workers.serving.patience import patiently
from sitsearch.workers.serving.persistence import Persistence

log = logging.getLogger(__name__)

#: Seconds that a call of samplers may take, and times as long as its rows take alone; who needs more is taken for dead.
PATIENCE, SLOWEST = 600.0, 50.0
#: Seconds that a call of a verifier may take.
VERIFIER_PATIENCE = 600.0
#: Seconds before a verifier is asked again whose own source is away, which double, and the most that they come to.
PAUSE, MOST_PAUSE = 0.5, 30.0
#: Seconds of replay after which others get their turn.
SLICE = 0.02
#: Bytes of pixels whose compression others need not wait for.
ASIDE = 2**18

Named = TypeVar("Named", ModelOffer, VerifierOffer, SamplerOffer)


@dataclass(frozen=True)
class Pools:
    """What a deployment can make and score with.

    Attributes:
        samplers: handle of the sampler deployment by model name.
        verifiers: handle of the verifier deployment by verifier name.
        offer: what they say they can do.
        slots: sampler replicas that share a round, at most.
        suspects: the line for orders under which replicas ended, see `Persistence`.
        verifier_patience: seconds that a job waits for a verifier whose own source is away.
    """

    samplers: Mapping[str, DeploymentHandle]
    verifiers: Mapping[str, DeploymentHandle]
    offer: Offer
    slots: int
    suspects: asyncio.Lock
    verifier_patience: float

    def model(self, name: str) -> ModelOffer:
        """What is offered of a model; raises UnknownName."""
        return _named("model", name, self.offer.models)

    def verifier(self, name: str) -> VerifierOffer:
        """What is offered of a verifier; raises UnknownName."""
        return _named("verifier", name, self.offer.verifiers)


class Drained(Exception):
    """A round is logged, and another coordinator is to go on."""


class Work(Executor[np.ndarray]):
    """A claimed job under way.

    Args:
        claim: the hold on the job.
        pools: what carries it out.
        store: where its rounds are logged.
        told: called with the candidates of every round that was logged.
    """

    def __init__(
        self, claim: Claim, pools: Pools, store: JobStore, told: Callable[[Sequence[Candidate]], None]
    ) -> None:
        self._claim, self._pools, self._store, self._told = claim, pools, store, told
        self._job, request = claim.job, claim.job.request
        self._model = pools.model(request.model)
        self._selectors = [pools.verifier(name) for name in request.verifier.names]
        model = self._model
        self._conditions = conditions_of(request, claim.job.class_indices, model.classes, model.template)
        self._preview = any("preview" in verifier.needs for verifier in self._selectors)
        self._slots, self._wasted = Slots(pools.slots), _Wasted(claim.job)
        self._steers = getattr(ALGORITHMS[request.search.algorithm], "steers", False)
        self._pictures: np.ndarray | None = None  # of the round under way
        self._states: dict[Recipe, np.ndarray] = {}  # of what may guide others: every replica needs all of them
        self._retaken, self._draining, self._over = claim.taken_over, False, False
        self._deadline: float | None = None  # of `time.monotonic`
        self._run: Run | None = None
        self.sets = request.condition.is_many and self._selectors[0].sets
        offered = {verifier.name: verifier.fingerprint for verifier in pools.offer.verifiers}
        self.judges = {name: print for name, print in offered.items() if print is not None}

    async def search(self) -> tuple[Result, Usage]:
        """Search from where the job's log ends; its result and usage.

        Raises:
            JobCanceled, LeaseLost: the claim no longer holds.
            StoreUnavailable: the log could not be read.
            RoundOutOfOrder: the store has lost rounds: the log is to be read again.
            Drained: see `drain`.
            RayError, SitsearchError, ValueError: the job cannot be carried out.
        """
        job = self._job
        method = _named("sampling method", job.request.sampler.method, self._model.samplers)
        run = self._run = start_run(job.request, method, self._model.samplers)
        begin = time.monotonic()
        async for entry in self._store.rounds(job.id):
            run.replay_one(entry, job.extensions)
            if time.monotonic() - begin > SLICE:
                await asyncio.sleep(0)
                begin = time.monotonic()
        run.extend_where_due(job.extensions)
        seconds = job.request.budget.seconds
        if seconds is not None:
            self._deadline = time.monotonic() + seconds - max(0.0, time.time() - (job.started_at or time.time()))
        await drive(run, self, out_of_time=lambda: self._seconds_left <= 0)
        self._over = True
        return run.result(), self._wasted.added_to(run.usage)

    def so_far(self, reason: StopReason) -> tuple[Result | None, Usage]:
        """What was found by now, None if nothing, and the usage."""
        if self._run is None:
            return None, self._job.usage
        found = self._run.result_so_far(reason) if self._run.best else None
        return found, self._wasted.added_to(self._run.usage)

    def drain(self) -> None:
        """End with `Drained` when the round under way is logged."""
        self._draining = True

    @property
    def _seconds_left(self) -> float:
        return math.inf if self._deadline is None else self._deadline - time.monotonic()

    def lesson(self) -> Lesson | None:
        """What the search teaches others, once it is over; None if nothing."""
        return lesson_of(self._run) if self._run is not None and self._over else None

    async def make(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        """See `Executor.make`: by all replicas of the job's model together."""
        if self._retaken:  # the round that the lost coordinator had under way is evaluated again
            self._wasted.add_all(proposals)
            self._retaken = False
        left = self._seconds_left
        if left == math.inf or self._run is None or not self._run.best or self._run.phase != "search":
            made = await self._sample(proposals)
        else:
            try:
                made = await asyncio.wait_for(self._sample(proposals), max(left, 0.0))
            except TimeoutError:
                self._wasted.add_all(proposals)
                raise OutOfTime from None
        self._wasted.add(made.nfe_again, made.forwards_again, made.gradients_again)
        self._pictures = made.images
        return made

    async def _sample(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        job = self._job
        orders = orders_of(proposals, job.request.sampler, self._conditions, preview=self._preview)
        sampler, slots = self._pools.samplers[job.request.model], self._slots.assign(orders)
        lent = [self._states.get(one.recipe) for one in orders[0].references] if self._steers else None
        rows = sum(proposal.nfe for proposal in proposals) * job.request.sampler.rows
        seconds = PATIENCE + SLOWEST * rows / (self._model.forwards_per_second or 1.0)
        calls = Persistence(job.id, self._pools.suspects, lambda at: self._wasted.add_all([proposals[i] for i in at]))

        def by(slot: int) -> Callable[[Sequence[int]], Awaitable[Made[np.ndarray]]]:
            handle = sampler.options(multiplexed_model_id=key_of(job.id, slot))

            async def call(places: Sequence[int]) -> Made[np.ndarray]:
                chosen = [orders[place] for place in places]
                (made,) = await together([handle.sample.remote(job.id, chosen, job.request.priority, lent)])
                return cast("Made[np.ndarray]", made)

            return call

        found = await together(
            [asyncio.ensure_future(calls.divided(places, by(slot), seconds)) for slot, places in slots.items()]
        )
        parts = [part for of_slot in found for part in of_slot]
        made = in_order([part for _, part in parts], [place for places, _ in parts for place in places])
        if made.states is not None and len(self._states) < MOST_REFERENCES:
            self._states |= {order.recipe: state for order, state in zip(orders, made.states, strict=True)}
        return made

    async def score(
        self, names: Sequence[str], images: np.ndarray, conditions: Sequence[int], previews: np.ndarray | None
    ) -> list[dict[str, float]]:
        """See `Executor.score`: all verifiers work at the same time."""
        wanted = [self._conditions[place] for place in conditions]
        shown = {name: previews if "preview" in self._pools.verifier(name).needs else None for name in names}
        handles = self._pools.verifiers
        columns = await together(
            [
                asyncio.ensure_future(self._asked(name, handles[name].score, images, wanted, shown[name]))
                for name in names
            ]
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    async def score_set(self, images: np.ndarray, chosen: Sequence[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
        """See `Executor.score_set`."""
        call = self._pools.verifiers[self._job.request.verifier.name].set_scores
        features = np.stack(chosen) if chosen else None
        scores, found = await self._asked(self._job.request.verifier.name, call, images, features)
        return scores, [row.copy() for row in found]

    async def features(self, images: Sequence[np.ndarray]) -> list[list[float]]:
        """See `Executor.features`: by the first of the verifiers that select which has any."""
        self._retaken = False  # nothing was evaluated in vain: what was under way was this choice
        telling = next((verifier for verifier in self._selectors if verifier.features), self._selectors[0])
        call = self._pools.verifiers[telling.name].features
        return list(await self._asked(telling.name, call, np.stack(images)))

    async def recall(self, candidates: Sequence[Candidate]) -> list[np.ndarray]:
        """See `Executor.recall`: the store has them, for a time."""
        images, ids = [], [candidate.id for candidate in candidates]
        pngs = await patiently(lambda: self._store.images(self._job.id, ids), f"job {self._job.id}")
        for candidate, png in zip(candidates, pngs, strict=True):
            if png is None:
                raise SearchError(f"the image of {candidate.id!r} has expired, and the search cannot go on without it")
            images.append(decode_png(png))
        return images

    async def log(self, run: Run, entry: LoggedRound, fresh: Sequence[tuple[Candidate, np.ndarray]]) -> None:
        """See `Executor.log`.

        Raises:
            Drained: it is logged, and another coordinator is to go on.
        """
        images = await _encoded(fresh)
        round = run.log()
        await self._show(round)
        await patiently(
            lambda: self._store.append_round(
                self._claim,
                entry,
                progress=run.progress,
                usage=self._wasted.added_to(run.usage),
                images=images,
                keep=[candidate.id for candidate in run.kept],
                candidates=round.candidates,
            ),
            f"job {self._job.id}",
        )
        self._told(round.candidates)
        if self._draining:
            raise Drained

    async def _show(self, logged: Round) -> None:
        """Put some of the round's candidates where pages find them, before they learn of the round."""
        pictures, self._pictures = self._pictures, None
        most = self._store.settings.thumbnails
        if pictures is None or not logged.candidates or not most:
            return
        page = shown(logged, most if logged.round * most < MANY else 1)
        places = {candidate.id: place for place, candidate in enumerate(logged.candidates)}

        def encode() -> dict[str, bytes]:
            return {candidate.id: encode_thumbnail(pictures[places[candidate.id]]) for candidate in page.candidates}

        large = pictures[0].size * len(page.candidates) > ASIDE
        thumbnails = await asyncio.to_thread(encode) if large else encode()
        try:
            await self._store.show(self._job.id, page, thumbnails)
        except StoreUnavailable as error:  # a page without pictures is no reason to wait
            log.info("job %s shows no pictures of round %d: %s", self._job.id, logged.round, error)

    async def _asked(self, name: str, method: Any, *arguments: Any) -> Any:
        """What a verifier answers; while what it asks in turn is away, the job waits, and says so.

        Raises:
            VerifierUnavailable: it was away for longer than `Pools.verifier_patience`.
        """
        calls = Persistence(self._job.id, self._pools.suspects, lambda _: None)
        given_up, pause = time.monotonic() + self._pools.verifier_patience, PAUSE

        async def call() -> Any:
            (answer,) = await together([method.remote(*arguments)])
            return answer

        while True:
            try:
                return await calls.whole(call, VERIFIER_PATIENCE)
            except Exception as error:
                cause = error.cause if isinstance(error, RayTaskError) else error
                if not isinstance(cause, VerifierUnavailable) or time.monotonic() + pause > given_up:
                    raise
                note = f"verifier {name!r} does not answer, it will be asked again: {cause}"
            log.warning("job %s: %s", self._job.id, note)
            await patiently(functools.partial(self._store.note, self._claim, note), f"job {self._job.id}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, MOST_PAUSE)


async def _encoded(fresh: Sequence[tuple[Candidate, np.ndarray]]) -> dict[str, bytes]:
    """PNGs by candidate id; large ones are made on a thread."""

    def encode() -> dict[str, bytes]:
        return {candidate.id: encode_png(image, candidate) for candidate, image in fresh}

    large = sum(image.size for _, image in fresh) > ASIDE
    return await asyncio.to_thread(encode) if large else encode()


def _named(kind: str, name: str, offers: Sequence[Named]) -> Named:
    for offer in offers:
        if offer.name == name:
            return offer
    raise UnknownName(kind, name, [offer.name for offer in offers])


class _Wasted:
    """What was evaluated again after faults: an upper bound, as a dead replica cannot say how far it came."""

    def __init__(self, job: Job) -> None:
        self.nfe, self.forwards = job.usage.nfe_wasted, job.usage.forwards_wasted
        self.gradients = job.usage.gradients_wasted
        self._rows = job.request.sampler.rows

    def add(self, nfe: int, forwards: int, gradients: int) -> None:
        self.nfe += nfe
        self.forwards += forwards
        self.gradients += gradients

    def add_all(self, proposals: Sequence[Proposal]) -> None:
        nfe = sum(proposal.nfe for proposal in proposals)
        self.add(nfe, nfe * self._rows, sum(proposal.gradients for proposal in proposals))

    def added_to(self, usage: Usage) -> Usage:
        wasted = {"nfe_wasted": self.nfe, "forwards_wasted": self.forwards, "gradients_wasted": self.gradients}
        return usage.model_copy(update=wasted)
