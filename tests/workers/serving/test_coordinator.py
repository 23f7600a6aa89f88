"""The coordinator over stub handles and a real Valkey: what a job goes through, without Ray."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import io
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image
from ray.exceptions import RayActorError

from bench.stub_pools import StubSampler, StubVerifier
from sitsearch.models.verifiers.errors import VerifierUnavailable
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.jobs.errors import StoreUnavailable
from sitsearch.workers.jobs.images import decode_png
from sitsearch.workers.jobs.job import Extension, Job, Progress, Result, Status
from sitsearch.workers.jobs.offer import Offer
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.search.runs.drive import Made
from sitsearch.workers.search.runs.run import SearchRun
from sitsearch.workers.serving import coordinator as coordinator_module
from sitsearch.workers.serving import persistence
from sitsearch.workers.serving.coordinator import MAX_CLAIMS, Coordinator
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import logged_rounds, make_job, make_request

STEPS, NEIGHBORS = 4, 3
EULER = {"method": "euler", "steps": STEPS, "guidance": 1.0}


class Painter(StubSampler):
    """An image is of one grey, a function of its recipe.

    Args:
        failures: what the first calls raise.
        answers: so many calls are answered, and no further one before the gate is opened again.
    """

    def __init__(self, failures: Sequence[Exception] = (), *, answers: int | None = None) -> None:
        gate = asyncio.Event()
        gate.set()
        super().__init__(gate)
        self.failures, self.answers = list(failures), answers

    async def _sample(
        self, job: str, orders: Sequence[Order], priority: float, lent: Sequence[np.ndarray | None] | None = None
    ) -> Made[np.ndarray]:
        if self.answered == self.answers:
            self.gate.clear()
        return await super()._sample(job, orders, priority)

    def draw(self, orders: Sequence[Order]) -> np.ndarray:
        if self.failures:
            raise self.failures.pop(0)
        greys = [hashlib.sha256(order.recipe.model_dump_json().encode()).digest()[0] for order in orders]
        return np.broadcast_to(np.array(greys, np.uint8)[:, None, None, None], (len(orders), 32, 32, 3)).copy()


class Light(StubVerifier):
    """Likes light images, or dark ones; the first calls can fail."""

    def __init__(self, name: str = "classifier", *, sign: float = 1.0, sets: bool = False) -> None:
        super().__init__(name, sets=sets)
        self.sign, self.failures = sign, list[Exception]()
        self.calls, self.chosen = 0, list[np.ndarray | None]()

    def judge(self, images: np.ndarray) -> list[float]:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        return [self.sign * float(image.mean()) for image in images]

    async def _set_scores(self, images: np.ndarray, chosen: np.ndarray | None) -> tuple[list[float], np.ndarray]:
        self.chosen.append(chosen)
        return await super()._set_scores(images, chosen)


def job(rounds: int = 4, **fields: Any) -> Job:
    """A zero-order search of so many rounds after its first candidate."""
    budget = STEPS * (NEIGHBORS * rounds + 1)
    defaults: dict[str, Any] = {
        "budget": {"nfe": budget},
        "search": {"algorithm": "zero_order", "preset": "paper", "neighbors": NEIGHBORS},
        "sampler": EULER,
        "seed": 3,
    }
    request = make_request(**(defaults | fields))
    indices = tuple(range(len(request.condition.each)))
    return make_job(request=request, class_indices=indices, progress=Progress(nfe_budget=request.budget.nfe))


@asynccontextmanager
async def coordinating(
    settings: Settings, sampler: StubSampler | None = None, *verifiers: StubVerifier
) -> AsyncIterator[Coordinator]:
    """A coordinator at work, and its end as if it were killed."""
    handles: dict[str, Any] = {verifier.name: verifier for verifier in verifiers or (Light(),)}
    samplers: dict[str, Any] = {"glyphs": sampler or Painter()}
    coordinator = Coordinator(settings.model_dump(mode="json"), samplers, handles)
    try:
        yield coordinator
    finally:
        await asyncio.gather(*coordinator.stop(), return_exceptions=True)
        await coordinator.store.aclose()


async def until(store: JobStore, wanted: Job, holds: Callable[[Job], bool] = lambda job: job.status.terminal) -> Job:
    """The job once something holds of it."""
    async with asyncio.timeout(20):
        while True:
            current = await store.get(wanted.id)
            assert current is not None
            if holds(current):
                return current
            await asyncio.sleep(0.01)


def winner(job: Job) -> tuple[Any, float]:
    """Recipe and score of the best image."""
    assert isinstance(job.result, Result), job.error
    best = job.result.images[0]
    return best.candidate.recipe, best.score


@pytest.fixture
def lasting(store_settings: Settings) -> Settings:
    """A lease that outlasts a test."""
    return store_settings.model_copy(update={"lease": 20.0})


async def test_a_job_is_searched_logged_and_ended(store: JobStore, lasting: Settings) -> None:
    wanted = job(num_images=2)
    await store.submit(wanted)
    async with coordinating(lasting) as coordinator:
        done = await until(store, wanted)
        assert done.status is Status.SUCCEEDED and done.result is not None
        assert done.usage.nfe_search == done.progress.nfe_spent == wanted.request.budget.nfe
        assert done.usage.nfe_wasted == 0
        rounds = await logged_rounds(store, wanted.id)
        assert len(rounds) == done.progress.round >= len(done.progress.curve)
        every = [score for round in rounds for score in round.scores["classifier"]]
        assert done.result.images[0].score == max(every)
        images = await store.redis.hgetall(store.keys.images(wanted.id))  # type: ignore[misc]
        assert {key.decode() for key in images} == {image.candidate.id for image in done.result.images}
        for ranked in done.result.images:
            assert decode_png(images[ranked.candidate.id.encode()]).mean() == ranked.score
        assert coordinator.counters["jobs_total"] == 1
        assert coordinator.counters["rounds_total"] == len(rounds)
        assert coordinator.counters["candidates_total"] == len(every)
    assert await store.redis.exists(store.keys.waiting, store.keys.leases) == 0


async def test_a_search_that_was_extended_ends_as_one_of_the_whole_budget(store: JobStore, lasting: Settings) -> None:
    whole, part = job(rounds=6), job(rounds=2)
    await store.submit(whole)
    await store.submit(part)
    async with coordinating(lasting):
        short = await until(store, part)
        await store.extend(short, Extension(after_round=short.progress.round, nfe=4 * NEIGHBORS * STEPS))
        extended = await until(store, part, lambda job: job.status.terminal and job.progress.round > 3)
        expected = await until(store, whole)
    assert winner(extended) == winner(expected) and extended.progress.curve == expected.progress.curve


async def test_another_coordinator_goes_on_where_one_was_lost(store: JobStore, store_settings: Settings) -> None:
    undisturbed, wanted = job(), job()
    async with coordinating(store_settings):
        await store.submit(undisturbed)
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    async with coordinating(store_settings, Painter(answers=2)):
        await until(store, wanted, lambda job: job.progress.round == 2)
    async with coordinating(store_settings):
        done = await until(store, wanted)
    assert winner(done) == winner(expected) and done.progress.curve == expected.progress.curve
    assert done.usage.nfe_search == expected.usage.nfe_search
    # the round under way is made again; it is counted as waste, at most at what it was to cost
    assert 0 < done.usage.nfe_wasted <= NEIGHBORS * STEPS


async def test_a_set_goes_on_with_what_was_chosen_before(store: JobStore, store_settings: Settings) -> None:
    fields: dict[str, Any] = {
        "condition": {"classes": [0, 1, 2, 3]},
        "budget": {"nfe": 4 * 3 * STEPS},
        "search": "random",
        "verifier": "fid",
    }
    undisturbed, wanted = job(**fields), job(**fields)
    async with coordinating(store_settings, Painter(), Light("fid", sets=True)):
        await store.submit(undisturbed)
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    async with coordinating(store_settings, Painter(answers=2), Light("fid", sets=True)):
        await until(store, wanted, lambda job: job.progress.round == 2)
    verifier = Light("fid", sets=True)
    async with coordinating(store_settings, Painter(), verifier):
        done = await until(store, wanted)
    assert done.result == expected.result and done.result is not None
    greys = [image.score for image in done.result.images]
    last = verifier.chosen[-1]
    assert last is not None and last.mean(axis=1).tolist() == greys[:3], "the set so far has every earlier choice"


async def test_an_adaptive_allocation_is_gone_on_with(store: JobStore, store_settings: Settings) -> None:
    fields: dict[str, Any] = {
        "condition": {"many": [{"class": label, "prompt": f"number {label}"} for label in range(4)]},
        "allocation": "adaptive",
        "budget": {"nfe": 48 * STEPS},
        "search": "random",
    }
    undisturbed, wanted = job(**fields), job(**fields)
    async with coordinating(store_settings):
        await store.submit(undisturbed)
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    async with coordinating(store_settings, Painter(answers=3)):
        await until(store, wanted, lambda job: job.progress.round == 3)
    async with coordinating(store_settings):
        done = await until(store, wanted)
    assert done.result == expected.result and done.progress == expected.progress and done.result is not None
    assert sum(image.nfe or 0 for image in done.result.images) == 48 * STEPS


async def test_when_a_replica_dies_it_is_asked_again(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "PAUSE", 0.001)
    undisturbed, wanted = job(), job()
    await store.submit(undisturbed)
    async with coordinating(lasting):
        expected = await until(store, undisturbed)
    await store.submit(wanted)
    verifier = Light()
    verifier.failures = [RayActorError()]
    async with coordinating(lasting, Painter([RayActorError(), RayActorError()]), verifier):
        done = await until(store, wanted)
    assert winner(done) == winner(expected)
    assert done.usage.nfe_wasted == 2 * STEPS, "the first candidate, twice; scores cost no NFE"


async def test_an_order_that_ends_every_replica_fails_the_job_with_what_it_found(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(persistence, "PAUSE", 0.001)
    wanted, sampler = job(), Painter(answers=1)
    await store.submit(wanted)
    async with coordinating(lasting, sampler):
        await until(store, wanted, lambda job: job.progress.round == 1)
        sampler.failures = [RayActorError() for _ in range(99)]
        sampler.answers = None
        sampler.gate.set()
        done = await until(store, wanted)
    assert done.status is Status.FAILED and done.error is not None
    assert done.error.code == "poisoned-order" and len(sampler.failures) > 80
    assert done.usage.nfe_search == STEPS, "its first round"
    assert done.result is not None and done.result.stopped_by == "failed"


async def test_a_judge_that_does_not_answer_is_named(store: JobStore, lasting: Settings) -> None:
    wanted = job()
    await store.submit(wanted)
    verifier = Light()
    verifier.failures = [VerifierUnavailable("judge.example after 4 tries: status 503")]
    async with coordinating(lasting.model_copy(update={"verifier_patience": 0.0}), Painter(), verifier):
        done = await until(store, wanted)
    assert done.status is Status.FAILED and done.error is not None and done.error.code == "verifier-unavailable"
    assert "judge.example" in done.error.detail


async def test_a_model_that_is_gone_fails_the_job_by_its_name(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_module, "RETURN_PAUSE", 0.05)
    wanted = job(model="gone")
    await store.submit(wanted)
    async with coordinating(lasting):
        done = await until(store, wanted)
    assert done.error is not None and done.error.detail == "UnknownName: no model named 'gone'; known: glyphs"


async def test_a_canceled_job_is_dropped_at_once(store: JobStore, lasting: Settings) -> None:
    wanted, sampler = job(), Painter(answers=0)
    await store.submit(wanted)
    async with coordinating(lasting, sampler) as coordinator:
        await until(store, wanted, lambda job: job.status is Status.RUNNING)
        await store.cancel(wanted.id)
        async with asyncio.timeout(5):  # a quarter of the lease: nothing waits for its renewal
            while coordinator._held:
                await asyncio.sleep(0.01)
    done = await store.get(wanted.id)
    assert done is not None and done.status is Status.CANCELED and done.progress.round == 0


async def test_nothing_of_a_canceled_job_stays_in_memory(store: JobStore, lasting: Settings) -> None:
    """Exceptions hold the frames that they passed through: no cycle may keep them, as collections are rare here."""
    wanted, sampler = job(), Painter(answers=1)
    await store.submit(wanted)
    gc.collect()
    others = [found for found in gc.get_objects() if type(found) is SearchRun]  # of tests before this one
    gc.disable()
    try:
        async with coordinating(lasting, sampler) as coordinator:
            await until(store, wanted, lambda job: job.progress.round == 1)
            await store.cancel(wanted.id)
            async with asyncio.timeout(5):
                while coordinator._held:
                    await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            assert [found for found in gc.get_objects() if type(found) is SearchRun and found not in others] == []
    finally:
        gc.enable()


async def test_who_lost_the_lease_writes_nothing_more(store: JobStore, lasting: Settings) -> None:
    wanted, sampler = job(), Painter(answers=0)
    await store.submit(wanted)
    async with coordinating(lasting, sampler) as coordinator:
        await until(store, wanted, lambda job: job.status is Status.RUNNING)
        await store.redis.hset(store.keys.job(wanted.id), "token", "another's")
        sampler.answers = None
        sampler.gate.set()
        async with asyncio.timeout(5):
            while coordinator._held:
                await asyncio.sleep(0.01)
    left = await store.get(wanted.id)
    assert left is not None and left.status is Status.RUNNING and left.progress.round == 0


async def test_a_job_that_ends_its_coordinators_is_ended(store: JobStore, lasting: Settings) -> None:
    wanted = job()
    await store.submit(wanted)
    await store.redis.hset(store.keys.job(wanted.id), "attempts", str(MAX_CLAIMS))
    async with coordinating(lasting):
        done = await until(store, wanted)
    assert done.status is Status.FAILED and done.error is not None and done.error.code == "claimed-too-often"


class Odd(Light):
    """Likes what has nothing to do with light or dark."""

    def judge(self, images: np.ndarray) -> list[float]:
        return [float(97 * int(image[0, 0, 0]) % 256) for image in images]


async def test_when_an_ensemble_changes_its_mind_the_earlier_image_is_audited(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    recalled = list[str]()
    images = JobStore.images

    async def counted(self: JobStore, job_id: str, candidate_ids: Sequence[str]) -> Sequence[bytes | None]:
        recalled.extend(candidate_ids)
        return await images(self, job_id, candidate_ids)

    monkeypatch.setattr(JobStore, "images", counted)
    ensemble = {"name": "ensemble", "members": ["light", "odd"]}
    search = {"algorithm": "random", "round_size": 1}
    wanted = job(rounds=20, verifier=ensemble, auditors=["auditor"], search=search, num_images=8, seed=5)
    await store.submit(wanted)
    auditor = Light("auditor", sign=0.5)
    async with coordinating(lasting, Painter(), Light("light"), Odd("odd"), auditor):
        done = await until(store, wanted)
    assert done.result is not None, done.error
    best = done.result.images[0]
    assert best.audits == {"auditor": best.candidate.scores["light"] / 2}
    rounds = await logged_rounds(store, wanted.id)
    light = {f"{round.round}-0": round.scores["light"][0] for round in rounds}
    audited = {round.audits["auditor"] * 2 for round in rounds if round.audits is not None}
    assert recalled and {light[candidate_id] for candidate_id in recalled} <= audited
    assert auditor.calls == len(audited), "each once"


async def test_its_loops_outlive_a_store_that_is_away(
    store: JobStore, lasting: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coordinator_module, "PAUSE", 0.01)
    publish, calls = JobStore.publish_offer, list[None]()

    async def away_at_first(self: JobStore, offer: Offer) -> None:
        calls.append(None)
        if len(calls) < 4:
            raise StoreUnavailable("Redis does not serve")
        await publish(self, offer)

    monkeypatch.setattr(JobStore, "publish_offer", away_at_first)
    wanted = job()
    await store.submit(wanted)
    async with coordinating(lasting) as coordinator:
        assert (await until(store, wanted)).status is Status.SUCCEEDED
        coordinator.check_health()
        while await store.offer() is None:
            await asyncio.sleep(0.01)
    assert len(calls) >= 4


async def test_a_loop_that_ends_is_bad_health(lasting: Settings) -> None:
    async with coordinating(lasting) as coordinator:
        coordinator._loops[0].cancel()
        await asyncio.sleep(0)
        await asyncio.gather(coordinator._loops[0], return_exceptions=True)
        with pytest.raises(RuntimeError, match="loop has ended"):
            coordinator.check_health()


def test_it_loads_neither_torch_nor_the_engine() -> None:
    code = (
        "import sys; import sitsearch.workers.serving.coordinator; "
        "print([name for name in ('torch', 'sitsearch.workers.engine.engine') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


async def test_pages_are_shown_a_part_of_each_round(store: JobStore, store_settings: Settings) -> None:
    settings = store_settings.model_copy(update={"thumbnails": 2})
    wanted = job(rounds=2)
    async with coordinating(settings, Painter()):
        await store.submit(wanted)
        ended = await until(store, wanted)
    pages = await store.shown(ended.id, 0, 10)
    assert [(page.round, page.count, len(page.candidates)) for page in pages] == [(0, 1, 1), (1, 3, 2), (2, 3, 2)]
    best = ended.result and ended.result.images[0].candidate
    assert best in [candidate for page in pages for candidate in page.candidates], "the best of a round is shown"
    pictures = await store.thumbnails(ended.id, [c.id for page in pages for c in page.candidates])
    assert len(pictures) == 5
    assert best is not None
    with Image.open(io.BytesIO(pictures[best.id])) as picture:
        assert np.asarray(picture.convert("RGB")).mean() == best.scores["classifier"]
