"""Diverse results over stub handles and a real Valkey: a choice is made once, whoever makes it."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from sitsearch.workers.jobs.images import decode_png
from sitsearch.workers.jobs.job import Extension, Status
from sitsearch.workers.jobs.offer import VerifierOffer
from sitsearch.workers.jobs.store import JobStore
from sitsearch.workers.settings import Settings
from tests.workers.jobs.store.makers import logged_rounds
from tests.workers.serving.test_coordinator import EULER, STEPS, Light, Painter, coordinating, job, until


@pytest.fixture
def lasting(store_settings: Settings) -> Settings:
    """A lease that outlasts a test."""
    return store_settings.model_copy(update={"lease": 20.0})


class Telling(Light):
    """Knows where images lie, or waits for ever when it is asked.

    Attributes:
        told: how many images it was asked about, call by call.
    """

    def __init__(self, name: str = "classifier", *, answers: bool = True, sign: float = 1.0) -> None:
        super().__init__(name, sign=sign)
        self.answers, self.told = answers, list[int]()

    async def _describe(self) -> VerifierOffer:
        return (await super()._describe()).model_copy(update={"features": True})

    async def _features(self, images: np.ndarray) -> list[list[float]]:
        self.told.append(len(images))
        if not self.answers:
            await asyncio.Event().wait()
        return await super()._features(images)


DIVERSE: dict[str, Any] = {
    "num_images": 3,
    "diversity": 0.8,
    "search": {"algorithm": "random", "round_size": 10},
    "budget": {"nfe": 30 * STEPS + 3 * 2 * STEPS},
    "sampler": EULER | {"final_steps": 2 * STEPS},
}


@pytest.mark.parametrize("lost", ["before the choice was made", "before it was logged", "after it", "at the end"])
async def test_a_diverse_choice_outlives_who_made_it(
    store: JobStore, store_settings: Settings, lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, wanted = job(**DIVERSE), job(**DIVERSE)
    async with coordinating(store_settings, Painter(), Telling()):
        await store.submit(undisturbed)
        expected = await until(store, undisturbed)
    assert expected.result is not None, expected.error
    choice = expected.result.choice
    assert choice is not None and choice.among == 12 and choice.distance > choice.distance_of_top
    assert [(rounds := await logged_rounds(store, undisturbed.id))[3].choice, len(rounds)] == [choice, 5]
    images = await store.redis.hgetall(store.keys.images(undisturbed.id))  # type: ignore[misc]
    assert len(images) == 12 + 3, "an extension may choose among all of them"

    first = Telling(answers=lost != "before the choice was made")
    rounds = {"before the choice was made": 3, "before it was logged": 3, "after it": 4, "at the end": 5}[lost]
    with monkeypatch.context() as patch:
        if lost == "before it was logged":
            append = JobStore.append_round

            async def away(self: JobStore, claim: Any, round: Any, **rest: Any) -> None:
                if round.choice is not None:
                    await asyncio.Event().wait()
                await append(self, claim, round, **rest)

            patch.setattr(JobStore, "append_round", away)
        if lost == "at the end":

            async def never(self: JobStore, *_: Any, **__: Any) -> None:
                await asyncio.Event().wait()

            patch.setattr(JobStore, "finish", never)
        await store.submit(wanted)
        async with coordinating(store_settings, Painter(answers=3 if lost == "after it" else None), first):
            await until(store, wanted, lambda job: job.progress.round == rounds)
            while not first.told:
                await asyncio.sleep(0.01)
    second = Telling()
    async with coordinating(store_settings, Painter(), second):
        done = await until(store, wanted)
    assert done.result == expected.result and done.progress == expected.progress
    assert first.told == [12] and second.told == ([12] if rounds == 3 else [])
    assert done.usage.nfe_wasted == (3 * 2 * STEPS if lost == "after it" else 0)
    for ranked in expected.result.images:
        png = await store.image(wanted.id, ranked.candidate.id)
        assert png is not None and decode_png(png).mean() == ranked.score


async def test_a_diverse_search_that_was_extended_chooses_anew(store: JobStore, lasting: Settings) -> None:
    part, whole = job(**DIVERSE), job(**(DIVERSE | {"budget": {"nfe": 60 * STEPS + 6 * STEPS}}))
    await store.submit(whole)
    await store.submit(part)
    async with coordinating(lasting, Painter(), Telling()):
        short = await until(store, part)
        await store.extend(short, Extension(after_round=5, nfe=30 * STEPS + 6 * STEPS))
        extended = await until(store, part, lambda job: job.status.terminal and job.progress.round > 5)
        expected = await until(store, whole)
    assert extended.result is not None and expected.result is not None and short.result is not None
    assert extended.result.choice is not None and expected.result.choice is not None
    assert extended.result.choice.ranks == expected.result.choice.ranks
    assert extended.result.choice != short.result.choice
    first = {image.candidate.recipe: image.score for image in extended.result.images}
    assert first == {image.candidate.recipe: image.score for image in expected.result.images}


async def test_an_extension_that_lacks_an_image_to_choose_among_spends_nothing(
    store: JobStore, lasting: Settings
) -> None:
    wanted = job(**DIVERSE)
    await store.submit(wanted)
    async with coordinating(lasting, Painter(), Telling()):
        short = await until(store, wanted)
        await store.redis.delete(store.keys.images(wanted.id))
        await store.extend(short, Extension(after_round=5, nfe=60 * STEPS))
        done = await until(store, wanted)
    assert done.status is Status.FAILED and done.error is not None and "has expired" in done.error.detail
    assert done.progress.nfe_spent == short.progress.nfe_spent


async def test_the_member_that_has_features_tells_images_apart(store: JobStore, lasting: Settings) -> None:
    wanted = job(**(DIVERSE | {"verifier": {"name": "ensemble", "members": ["light", "dark"]}}))
    await store.submit(wanted)
    light, dark = Light("light"), Telling("dark", sign=-0.5)
    async with coordinating(lasting, Painter(), light, dark):
        done = await until(store, wanted)
    assert done.result is not None and done.result.choice is not None, done.error
    assert dark.told == [12]
