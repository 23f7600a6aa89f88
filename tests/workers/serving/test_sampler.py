"""The sampler deployment's own part, without Ray: its thread."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future

import pytest
import torch
from torch import Tensor

from sitsearch.models.condition import Condition
from sitsearch.models.generator import Rows, SiTGenerator
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.submissions import Done
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.serving.sampler import SamplerReplica
from sitsearch.workers.settings import Settings


@pytest.fixture(autouse=True)
def _machine_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitsearch.workers.serving.sampler.take_machine", lambda threads: None)


def replica() -> SamplerReplica:
    return SamplerReplica("glyphs", Settings(_env_file=None, batch=2).model_dump(mode="json"))


def order() -> Order:
    recipe = Recipe(seed=0, round=0, index=0).then(Integrate(to=1.0, steps=2))
    return Order(recipe, Condition(class_index=3), SamplerChoice(method="euler", steps=2))


async def test_one_thread_computes_all_and_warms_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, evaluate = [], SiTGenerator.evaluate

    def watched(self: SiTGenerator, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        threads.append(threading.current_thread().name)
        return evaluate(self, x, t, rows)

    monkeypatch.setattr(SiTGenerator, "evaluate", watched)
    sampler = replica()
    warm_up = len(threads)
    assert warm_up > 0
    made = await sampler.sample("job", [order()])
    assert made.images.shape == (1, 32, 32, 3) and made.nfe == [2]
    assert len(threads) > warm_up and set(threads) == {"engine"}


def test_what_is_published_of_a_model_is_counted_on_the_loaded_one() -> None:
    offer = replica().describe()
    assert (offer.parameters, offer.macs_per_forward) == (4_202_160, 181_972_992)


def test_a_failed_warm_up_fails_the_replica(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(_: Engine) -> float:
        raise torch.OutOfMemoryError("no memory for the largest batch")

    monkeypatch.setattr(Engine, "measure", measure)
    with pytest.raises(torch.OutOfMemoryError, match="largest batch"):
        replica()


async def test_a_replica_whose_engine_fails_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    status: Future[int] = Future()

    def failing(_: Engine) -> list[Done]:
        raise torch.OutOfMemoryError("no memory for a forward")

    monkeypatch.setattr(Engine, "step", failing)
    monkeypatch.setattr("sitsearch.workers.serving.sampler.os._exit", status.set_result)
    asked = asyncio.create_task(replica().sample("job", [order()]))
    assert await asyncio.wait_for(asyncio.wrap_future(status), 60) == 1
    asked.cancel()


async def test_an_order_that_cannot_be_taken_in_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, rows = replica(), SiTGenerator.rows

    def no_room(_: SiTGenerator, conditions: list[Condition]) -> Rows:
        raise torch.OutOfMemoryError("no memory for a text encoder")

    monkeypatch.setattr(SiTGenerator, "rows", no_room)
    with pytest.raises(torch.OutOfMemoryError, match="text encoder"):
        await sampler.sample("job", [order()])
    monkeypatch.setattr(SiTGenerator, "rows", rows)
    assert (await sampler.sample("job", [order()])).nfe == [2]
