"""What goes wrong under a coordinator, and what becomes of its jobs: real Valkey, stub handles."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.serve.exceptions import DeploymentUnavailableError

from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.job import Extension, Status
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.serving import patience, persistence
from sitsearch.workers.serving import work as work_module
from sitsearch.workers.settings import Settings
from tests.workers.serving.test_coordinator import (
    EULER,
    NEIGHBORS,
    STEPS,
    Light,
    Painter,
    coordinating,
    job,
    until,
    winner,
)

RANDOM = {"search": {"algorithm": "random", "round_size": 4}, "budget": {"nfe": 16 * STEPS}, "sampler": EULER}


@pytest.fixture
def lasting(store_settings: Settings) -> Settings:
    """A lease that outlasts a test."""
    return store_settings.model_copy(update={"lease": 20.0})


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (patience, persistence, work_module):
        monkeypatch.setattr(module, "PAUSE", 0.005)


async def test_a_score_that_is_no_number_is_counted_and_never_selected(store: JobStore, lasting: Settings) -> None:
    class Sick(Light):
        def judge(self, images: np.ndarray) -> list[float]:
            scores = super().judge(images)
            best = scores.index(max(scores))
            return [math.nan if place == best else score for place, score in enumerate(scores)]

    wanted = job(**RANDOM, num_images=2)
    await store.submit(wanted)
    async with coordinating(lasting, Painter(), Sick()):
        done = await until(store, wanted)
    assert done.status is Status.SUCCEEDED and done.result is not None
    assert done.result.invalid == 4 and "4 of 16 candidates could not be scored" in done.result.warnings
    assert not any(image.candidate.invalid for image in done.result.images)


async def test_a_round_without_any_number_fails_by_its_name(store: JobStore, lasting: Settings) -> None:
    class Blind(Light):
        def judge(self, images: np.ndarray) -> list[float]:
            return [math.inf] * len(images)

    wanted = job(**RANDOM)
    await store.submit(wanted)
    async with coordinating(lasting, Painter(), Blind()):
        done = await until(store, wanted)
    assert done.error is not None and done.error.code == "verifier-invalid" and "'classifier'" in done.error.detail


async def test_a_store_that_is_away_for_a_while_is_waited_for(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("append_round", "finish"):
        plain, times = getattr(JobStore, name), iter(range(100))

        async def sick(self: JobStore, *args: object, plain=plain, times=times, **options: object) -> None:  # type: ignore[no-untyped-def]
            if next(times) % 4 < 3:
                raise StoreUnavailable("NOREPLICAS")
            await plain(self, *args, **options)

        monkeypatch.setattr(JobStore, name, sick)
    wanted = job()
    await store.submit(wanted)
    async with coordinating(lasting):
        done = await until(store, wanted)
    assert done.status is Status.SUCCEEDED and done.usage.nfe_wasted == 0


async def test_rounds_that_the_store_has_lost_are_made_again(store: JobStore, lasting: Settings) -> None:
    undisturbed, wanted, sampler = job(rounds=6), job(rounds=6), Painter(answers=3)
    await store.submit(undisturbed)
    async with coordinating(lasting):
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    async with coordinating(lasting, sampler):
        await until(store, wanted, lambda job: job.progress.round == 3)
        await store.redis.rpop(store.keys.rounds(wanted.id))  # type: ignore[misc]
        sampler.answers = None
        sampler.gate.set()
        done = await until(store, wanted)
    assert winner(done) == winner(expected) and done.progress == expected.progress


async def test_a_search_can_be_extended_as_often_as_one_likes(store: JobStore, lasting: Settings) -> None:
    wanted = job(rounds=1)
    await store.submit(wanted)
    async with coordinating(lasting):
        done = await until(store, wanted)
        for count in range(1, 13):
            await store.extend(done, Extension(after_round=done.progress.round, nfe=NEIGHBORS * STEPS))
            done = await until(
                store, wanted, lambda job, count=count: job.status.terminal and len(job.extensions) == count
            )  # type: ignore[misc]
    assert done.status is Status.SUCCEEDED and done.usage.nfe_search == STEPS * (1 + 13 * NEIGHBORS)


async def test_a_canceled_job_has_the_best_so_far(store: JobStore, lasting: Settings) -> None:
    wanted, sampler = job(), Painter(answers=2)
    await store.submit(wanted)
    async with coordinating(lasting, sampler):
        await until(store, wanted, lambda job: job.progress.round == 2)
        await store.cancel(wanted.id)
        done = await until(store, wanted, lambda job: job.result is not None)
        assert done.status is Status.CANCELED and done.result is not None and done.result.stopped_by == "canceled"
        sampler.answers = None
        sampler.gate.set()
        await store.resume(done)
        resumed = await until(store, wanted)
    assert resumed.status is Status.SUCCEEDED and resumed.usage.nfe_search == wanted.request.budget.nfe


async def test_a_verifier_that_is_away_for_a_while_is_waited_for_and_said_so(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_module, "PAUSE", 0.3)
    wanted, verifier = job(), Light()
    verifier.failures = [VerifierUnavailable("judge.example: status 503")]
    await store.submit(wanted)
    async with coordinating(lasting, Painter(), verifier):
        noted = await until(store, wanted, lambda job: job.note is not None)
        done = await until(store, wanted)
    assert noted.note is not None and "judge.example" in noted.note
    assert done.status is Status.SUCCEEDED and done.note is None


@pytest.mark.parametrize(
    "error", [OutOfMemoryError("killed"), DeploymentUnavailableError("starting"), RuntimeError("CUDA error: illegal")]
)
async def test_what_is_nobodys_fault_is_tried_again(store: JobStore, lasting: Settings, error: Exception) -> None:
    wanted, verifier = job(), Light()
    verifier.failures = [error]
    await store.submit(wanted)
    async with coordinating(lasting, Painter([error]), verifier):
        done = await until(store, wanted)
    assert done.status is Status.SUCCEEDED


async def test_a_poisoned_order_fails_alone(store: JobStore, lasting: Settings) -> None:
    """One candidate of one job ends every replica it comes to, with all that the replica has under way."""
    generation = [0]

    class Fragile(Painter):
        async def _sample(self, job, orders: Sequence[Order], priority, lent=None):  # type: ignore[no-untyped-def]
            began = generation[0]
            await asyncio.sleep(0.01)
            if any(
                order.recipe.seed == 666 and order.recipe.index == 3 and order.recipe.round == 1 for order in orders
            ):
                generation[0] += 1
            if generation[0] != began:
                raise ActorDiedError()
            return await super()._sample(job, orders, priority, lent)

    poisoned, others = job(**RANDOM, seed=666), [job(**RANDOM, seed=seed) for seed in range(4)]
    for one in (poisoned, *others):
        await store.submit(one)
    async with coordinating(lasting, Fragile()):
        done = await until(store, poisoned)
        ended = [await until(store, one) for one in others]
    assert done.error is not None and done.error.code == "poisoned-order"
    assert done.usage.nfe_search == 4 * STEPS and done.result is not None, "its first round stays"
    assert [one.status for one in ended] == [Status.SUCCEEDED] * 4


async def test_who_is_to_stop_gives_jobs_back_between_rounds(store: JobStore, lasting: Settings) -> None:
    undisturbed, wanted, sampler = job(rounds=6), job(rounds=6), Painter(answers=2)
    await store.submit(undisturbed)
    async with coordinating(lasting):
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    async with coordinating(lasting, sampler) as stopping:
        await until(store, wanted, lambda job: job.progress.round == 2)
        drained = asyncio.create_task(stopping.drain())
        await asyncio.sleep(0.05)
        sampler.answers = None
        sampler.gate.set()
        await drained
        assert not stopping._held
        async with coordinating(lasting):  # the lease of 20 s is not waited for
            done = await until(store, wanted)
    assert winner(done) == winner(expected) and done.usage.nfe_wasted == 0
