"""The work on one job: its run, carried out by the sampler and verifier pools, and logged round by round."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from sitsearch.models.condition import Condition
from sitsearch.workers.engine.orders import orders_of
from sitsearch.workers.errors import SearchError, UnknownName
from sitsearch.workers.jobs.images import decode_png, encode_png
from sitsearch.workers.jobs.job import Candidate, Job, Result, Usage
from sitsearch.workers.jobs.offer import ModelOffer, Offer, SamplerOffer, VerifierOffer
from sitsearch.workers.jobs.recipe import Recipe
from sitsearch.workers.jobs.store import Claim, JobStore
from sitsearch.workers.search.algorithms.lookahead import MOST_REFERENCES
from sitsearch.workers.search.base import Proposal
from sitsearch.workers.search.lessons.record import Lesson
from sitsearch.workers.search.registry import ALGORITHMS
from sitsearch.workers.search.runs.drive import Executor, Made, drive
from sitsearch.workers.search.runs.start import Run, start_run
from sitsearch.workers.search.runs.teaching import lesson_of
from sitsearch.workers.serving.affinity import Slots, key_of

log = logging.getLogger(__name__)

#: Calls of one pool before a replica's death is the job's; the first pause between them in seconds, which doubles.
ATTEMPTS, PAUSE = 5, 0.25

T = TypeVar("T")
Named = TypeVar("Named", ModelOffer, VerifierOffer, SamplerOffer)


@dataclass(frozen=True)
class Pools:
    """What a deployment can make and score with.

    Attributes:
        samplers: handle of the sampler deployment by model name.
        verifiers: handle of the verifier deployment by verifier name.
        offer: what they say they can do.
        slots: sampler replicas that share a round, at most.
    """

    samplers: Mapping[str, DeploymentHandle]
    verifiers: Mapping[str, DeploymentHandle]
    offer: Offer
    slots: int

    def model(self, name: str) -> ModelOffer:
        """What is offered of a model; raises UnknownName."""
        return _named("model", name, self.offer.models)

    def verifier(self, name: str) -> VerifierOffer:
        """What is offered of a verifier; raises UnknownName."""
        return _named("verifier", name, self.offer.verifiers)


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
        self._conditions = conditions_of(claim.job, self._model)
        self._preview = any("preview" in verifier.needs for verifier in self._selectors)
        self._slots, self._wasted = Slots(pools.slots), _Wasted(claim.job)
        self._steers = getattr(ALGORITHMS[request.search.algorithm], "steers", False)
        self._states: dict[Recipe, np.ndarray] = {}  # of what may guide others: every replica needs all of them
        self._retaken = claim.taken_over
        self._run: Run | None = None
        self.sets = request.condition.is_many and self._selectors[0].sets

    async def search(self) -> tuple[Result, Usage]:
        """Search from where the job's log ends; its result and usage.

        Raises:
            JobCanceled, LeaseLost, StoreUnavailable: the claim no longer holds, or cannot be kept.
            RayError, SitsearchError, ValueError: the job cannot be carried out.
        """
        job = self._job
        method = _named("sampling method", job.request.sampler.method, self._model.samplers)
        run = start_run(job.request, method, self._model.samplers)
        run.replay(await self._store.rounds(job.id), job.extensions)
        seconds = job.request.budget.seconds
        deadline = None if seconds is None else (job.started_at or time.time()) + seconds
        await drive(run, self, out_of_time=lambda: deadline is not None and time.time() >= deadline)
        self._run = run
        return run.result(), self._wasted.added_to(run.usage)

    def lesson(self) -> Lesson | None:
        """What the search teaches others, once it is over; None if nothing."""
        return None if self._run is None else lesson_of(self._run)

    async def make(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        """See `Executor.make`: by all replicas of the job's model together."""
        if self._retaken:  # the round that the lost coordinator had under way is evaluated again
            self._wasted.add_all(proposals)
            self._retaken = False
        made = await self._persist(lambda: self._sample(proposals), lambda: self._wasted.add_all(proposals))
        self._wasted.add(made.nfe_again, made.forwards_again, made.gradients_again)
        return made

    async def _sample(self, proposals: Sequence[Proposal]) -> Made[np.ndarray]:
        job = self._job
        orders = orders_of(proposals, job.request.sampler, self._conditions, preview=self._preview)
        sampler, slots = self._pools.samplers[job.request.model], self._slots.assign(orders)
        lent = [self._states.get(one.recipe) for one in orders[0].references] if self._steers else None
        parts: list[Made[np.ndarray]] = await together(
            [
                sampler.options(multiplexed_model_id=key_of(job.id, slot)).sample.remote(
                    job.id, [orders[place] for place in places], job.request.priority, lent
                )
                for slot, places in slots.items()
            ]
        )
        made = _in_order(parts, [place for places in slots.values() for place in places])
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
        columns = await self._persist(
            lambda: together([handles[name].score.remote(images, wanted, shown[name]) for name in names])
        )
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    async def score_set(self, images: np.ndarray, chosen: Sequence[np.ndarray]) -> tuple[list[float], list[np.ndarray]]:
        """See `Executor.score_set`."""
        call = self._pools.verifiers[self._job.request.verifier.name].set_scores
        features = np.stack(chosen) if chosen else None
        ((scores, found),) = await self._persist(lambda: together([call.remote(images, features)]))
        return scores, [row.copy() for row in found]

    async def features(self, images: Sequence[np.ndarray]) -> list[list[float]]:
        """See `Executor.features`: by the first of the verifiers that select which has any."""
        self._retaken = False  # nothing was evaluated in vain: what was under way was this choice
        telling = next((verifier for verifier in self._selectors if verifier.features), self._selectors[0])
        call = self._pools.verifiers[telling.name].features
        (found,) = await self._persist(lambda: together([call.remote(np.stack(images))]))
        return list(found)

    async def recall(self, candidates: Sequence[Candidate]) -> list[np.ndarray]:
        """See `Executor.recall`: the store has them, for a time."""
        images = []
        pngs = await self._store.images(self._job.id, [candidate.id for candidate in candidates])
        for candidate, png in zip(candidates, pngs, strict=True):
            if png is None:
                raise SearchError(f"the image of {candidate.id!r} has expired, and the search cannot go on without it")
            images.append(decode_png(png))
        return images

    async def log(self, run: Run, fresh: Sequence[tuple[Candidate, np.ndarray]]) -> None:
        """See `Executor.log`."""
        logged = run.log()
        await self._store.append_round(
            self._claim,
            logged,
            progress=run.progress,
            usage=self._wasted.added_to(run.usage),
            images={candidate.id: encode_png(image, candidate) for candidate, image in fresh},
            keep=[candidate.id for candidate in run.kept],
        )
        self._told(logged.candidates)

    async def _persist(self, call: Callable[[], Awaitable[T]], lost: Callable[[], None] | None = None) -> T:
        """Call again when a replica dies under it, since a recipe gives the same image and an image the same score."""
        try:  # nearly always this is all: what retries costs a third of a round's time, and holds what it was given
            return await call()
        except RayActorError as error:
            self._died(error, lost)

        async def again() -> T:
            return await call()

        await asyncio.sleep(PAUSE)
        return await AsyncRetrying(
            retry=retry_if_exception_type(RayActorError),
            stop=stop_after_attempt(ATTEMPTS - 1),
            wait=wait_exponential(multiplier=2 * PAUSE),
            before_sleep=lambda state: self._died(state.outcome.exception() if state.outcome else None, lost),
            reraise=True,
        )(again)

    def _died(self, error: BaseException | None, lost: Callable[[], None] | None) -> None:
        log.warning("a replica died under job %s: %s", self._job.id, error)
        if lost is not None:
            lost()


def _named(kind: str, name: str, offers: Sequence[Named]) -> Named:
    for offer in offers:
        if offer.name == name:
            return offer
    raise UnknownName(kind, name, [offer.name for offer in offers])


def conditions_of(job: Job, model: ModelOffer) -> list[Condition]:
    """What the job asks for; a class without a prompt has the text that the model's card makes of its name."""
    asked, template = job.request.condition.each, model.template or "{}"
    if not job.class_indices:
        return [Condition(prompt=one.prompt) for one in asked]
    return [
        Condition(index, one.prompt or template.format(model.classes[index]))
        for index, one in zip(job.class_indices, asked, strict=True)
    ]


async def together(responses: Sequence[Any]) -> list[Any]:
    """Await Serve responses together; when the caller is cancelled or one fails, the others are cancelled too."""
    try:
        return list(await asyncio.gather(*responses))
    except BaseException:
        for response in responses:
            response.cancel()
        raise


def _in_order(parts: Sequence[Made[np.ndarray]], places: Sequence[int]) -> Made[np.ndarray]:
    """The parts of a round as one; `places` are those of their samples in the round, part after part."""
    order = np.argsort(places)
    nfe = [count for part in parts for count in part.nfe]
    forwards = [count for part in parts for count in part.forwards]
    gradients = [count for part in parts for count in part.gradients]
    states = [part.states for part in parts if part.states is not None]
    previews = [part.previews for part in parts if part.previews is not None]
    return Made(
        images=np.concatenate([part.images for part in parts])[order],
        nfe=[nfe[i] for i in order],
        forwards=[forwards[i] for i in order],
        nfe_again=sum(part.nfe_again for part in parts),
        forwards_again=sum(part.forwards_again for part in parts),
        previews=np.concatenate(previews)[order] if previews else None,
        gradients=[gradients[i] for i in order] if gradients else (),
        gradients_again=sum(part.gradients_again for part in parts),
        states=np.concatenate(states)[order] if states else None,
    )


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
