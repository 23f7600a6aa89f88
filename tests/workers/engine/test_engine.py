"""The engine, on a tiny network with random weights and on the bundled model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from sitsearch.models.catalog import load_generator
from sitsearch.models.condition import Condition
from sitsearch.models.generator import SiTGenerator
from sitsearch.models.noise import gaussian
from sitsearch.models.samplers import make_sampler
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import buckets, filling
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.submissions import Done
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all
from tests.workers.tiny import DEVICE, tiny_generator


@pytest.fixture(scope="module")
def tiny() -> SiTGenerator:
    return tiny_generator()


def orders(count: int, *, seed: int = 1, label: int = 2, steps: int = 3, **sampler: Any) -> list[Order]:
    """Whole trajectories."""
    choice = SamplerChoice(steps=steps, **sampler)
    whole = Integrate(to=1.0, steps=steps)
    return [Order(Recipe(seed=seed, round=0, index=i).then(whole), Condition(label), choice) for i in range(count)]


def same(a: tuple[Sample, ...], b: tuple[Sample, ...]) -> bool:
    return all(
        torch.equal(x.image, y.image) and (x.nfe, x.forwards) == (y.nfe, y.forwards) for x, y in zip(a, b, strict=True)
    )


def step_to_the_end(engine: Engine) -> Iterator[Done]:
    while engine.busy:
        yield from engine.step()


def drain(engine: Engine) -> dict[int, tuple[Sample, ...]]:
    return {d.ticket: d.samples for d in step_to_the_end(engine)}


def test_a_sample_is_what_a_plain_sampling_loop_gives(tiny: SiTGenerator) -> None:
    (sample,) = sample_all(Engine(tiny, deterministic=False), orders(1, guidance=4.0))
    sampler = make_sampler("heun", steps=3)
    state = sampler.init(gaussian(1, 0, 0, tiny.shape)[None])
    while not bool(state.done):
        conditional = tiny.evaluate(state.query_x, state.query_t.float(), tiny.rows([Condition(2)]))
        unconditional = tiny.evaluate(state.query_x, state.query_t.float(), tiny.unconditional(1))
        state = sampler.step(state, unconditional + 4.0 * (conditional - unconditional), None)
    difference = (sample.image.int() - tiny.decoder.decode(state.x)[0].int()).abs().max()
    assert difference <= 1  # another batch shape may round the last bit the other way


def test_evaluations_are_counted_per_trajectory_and_add_up(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, batch=8)
    guided, plain = engine.submit("a", orders(5)), engine.submit("b", orders(3, method="euler", steps=7, guidance=1.0))
    done = drain(engine)
    assert {(s.nfe, s.forwards) for s in done[guided]} == {(6, 12)}
    assert {(s.nfe, s.forwards) for s in done[plain]} == {(7, 7)}
    assert engine.nfe == 5 * 6 + 3 * 7 and engine.forwards == 5 * 12 + 3 * 7


def test_jobs_share_forwards(tiny: SiTGenerator) -> None:
    together = Engine(tiny, batch=16)
    for job in ("a", "b", "c"):
        together.submit(job, orders(2, guidance=1.0))
    drain(together)
    alone = Engine(tiny, batch=16)
    sample_all(alone, orders(2, guidance=1.0))
    assert together.steps == alone.steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_deterministic_mode_gives_the_same_bits_whatever_shares_the_batch(dtype: torch.dtype) -> None:
    generator = load_generator("glyphs", device=DEVICE, dtype=dtype)
    alone = sample_all(Engine(generator, batch=16), orders(3, steps=2))
    engine = Engine(generator, batch=16)
    engine.submit("a", orders(7, seed=9, label=30, steps=3))
    engine.step()  # the others are under way at another time
    engine.submit("b", orders(2, seed=8, guidance=1.0, method="euler", steps=5))
    ticket = engine.submit("c", orders(3, steps=2))
    assert same(drain(engine)[ticket], alone)


def test_a_cancelled_submission_leaves_at_once_and_the_others_stay_whole(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, batch=8)
    gone, kept = engine.submit("a", orders(20)), engine.submit("b", orders(2, seed=4))
    engine.step()
    engine.cancel(gone)
    engine.cancel(gone)  # a second time changes nothing
    done = drain(engine)
    assert set(done) == {kept} and same(done[kept], sample_all(Engine(tiny, batch=8), orders(2, seed=4)))


def test_nothing_to_do_is_a_step_of_nothing(tiny: SiTGenerator) -> None:
    engine = Engine(tiny)
    assert engine.step() == [] and not engine.busy


def test_bad_orders_are_refused_and_change_nothing(tiny: SiTGenerator) -> None:
    engine = Engine(tiny)
    with pytest.raises(ValueError, match="at least one order"):
        engine.submit("a", [])
    with pytest.raises(ValueError, match=r"class 5 is not in \[0, 5\)"):
        engine.submit("a", orders(1, label=5))
    with pytest.raises(ValueError, match="magic"):
        engine.submit("a", orders(1, method="magic"))
    assert not engine.busy


def test_what_does_not_fit_in_memory_waits_as_recipes_and_is_made_all_the_same(tiny: SiTGenerator) -> None:
    roomy, narrow = Engine(tiny, batch=8), Engine(tiny, batch=8, live_bytes=1)
    whole = sample_all(roomy, orders(6))
    for job in "abc":
        narrow.submit(job, orders(6, seed=ord(job)))
    ticket, most, done = narrow.submit("d", orders(6)), 0, {}
    while narrow.busy:
        done |= {d.ticket: d.samples for d in narrow.step()}
        most = max(most, narrow.live)
    assert 0 < most < roomy_need(tiny, cohorts=2)
    assert narrow.live == 0 and len(done) == 4 and same(done[ticket], whole)


def roomy_need(tiny: SiTGenerator, *, cohorts: int) -> int:
    """What so many cohorts of one guided Heun trajectory take."""
    return cohorts * 4 * torch.Size(tiny.shape).numel() * 6


def test_a_thousand_queued_jobs_hold_no_states(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, batch=8)
    for job in range(1000):
        engine.submit(str(job), orders(2, seed=job))
    assert engine.live == 0
    engine.step()
    assert engine.live <= roomy_need(tiny, cohorts=4)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_forwards_are_padded_to_few_sizes_where_each_would_be_compiled(
    tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    sizes, evaluate = set(), tiny.evaluate

    def watched(x: torch.Tensor, t: torch.Tensor, rows: Any) -> torch.Tensor:
        sizes.add(len(x))
        return evaluate(x, t, rows)

    monkeypatch.setattr(tiny, "evaluate", watched)
    engine = Engine(tiny, batch=32, deterministic=False, buckets=buckets(32))
    for count in range(1, 8):
        engine.submit(str(count), orders(count, steps=count, guidance=guidance))
    drain(engine)
    assert sizes <= {4, 8, 16, 24, 32}


def test_warming_up_visits_every_size_and_is_nobodys_evaluation(
    tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, evaluate = [], tiny.evaluate

    def watched(x: torch.Tensor, t: torch.Tensor, rows: Any) -> torch.Tensor:
        sizes.append(len(x))
        return evaluate(x, t, rows)

    monkeypatch.setattr(tiny, "evaluate", watched)
    engine = Engine(tiny, batch=32, deterministic=False, buckets=buckets(32))
    assert engine.measure() > 0
    assert set(sizes) == {*buckets(32)} and (engine.nfe, engine.forwards, engine.steps) == (0, 0, 0)
    assert engine.warm_up_forwards == sum(sizes)


def test_forwards_are_filled_only_as_far_as_it_pays(tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    assert filling(32, lambda rows: 500) == 24, "a row costs the same in any forward"
    assert filling(32, lambda rows: 10.0 * rows) == 32, "a forward costs the same with any rows"
    assert filling(2, lambda rows: 500) == 2, "a guided evaluation takes two"
    engine = Engine(tiny, batch=32, deterministic=False)
    monkeypatch.setattr(engine._forwards, "rows_per_second", lambda rows: {24: 490.0, 32: 500.0}[rows])
    assert (engine.measure(), engine.fill) == (490, 24)
    engine.submit("a", orders(20, guidance=1.5))
    sizes = []
    while engine.busy:
        before = engine.forwards
        engine.step()
        sizes.append(engine.forwards - before)
    assert max(sizes) == 24


def test_sizes_that_would_change_a_result_are_not_used(tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, evaluate = [], tiny.evaluate

    def another_kernel(x: torch.Tensor, t: torch.Tensor, rows: Any) -> torch.Tensor:
        sizes.append(len(x))
        return evaluate(x, t, rows) * (1 + 1e-6 * (len(x) in (3, 4)))

    monkeypatch.setattr(tiny, "evaluate", another_kernel)
    engine = Engine(tiny, batch=8)
    engine.measure()
    sizes.clear()
    sample_all(engine, orders(3, guidance=1.0, method="euler", steps=2))
    assert len(sizes) == 2 and set(sizes) <= {5, 6, 7, 8}  # those that are all right on this device


def test_a_recipe_that_cannot_be_carried_out_fails_alone(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, batch=8)
    backwards = Recipe(seed=1, round=0, index=0).then(Integrate(to=0.5, steps=1), Integrate(to=0.4, steps=1))
    bad = engine.submit("a", [Order(backwards, Condition(2), SamplerChoice(method="euler", guidance=1.0))])
    good = engine.submit("b", orders(2))
    done = {d.ticket: d for d in step_to_the_end(engine)}
    assert len(done[good].samples) == 2
    with pytest.raises(ValueError, match="ascending"):
        _ = done[bad].samples


def test_what_a_failed_submission_had_made_leaves_with_it(tiny: SiTGenerator) -> None:
    engine, choice = Engine(tiny, batch=8), SamplerChoice(method="euler", guidance=1.0)
    root = Recipe(seed=1, round=0, index=0)
    ends = root.then(Integrate(to=1.0, steps=1))  # in the very step in which the other fails
    fails = root.then(Integrate(to=0.5, steps=1), Integrate(to=0.4, steps=1))
    for at_once in (root.then(Integrate(to=0.0, steps=1)), fails):
        engine.submit("a", [Order(recipe, Condition(2), choice) for recipe in (ends, at_once)])
        ended = [done for _ in range(5) for done in engine.step()]
        assert len(ended) == 1 and isinstance(ended[0].error, ValueError)
        assert not engine.busy and engine.live == 0


def test_a_submission_whose_cohorts_fail_in_the_same_step_ends_once(tiny: SiTGenerator) -> None:
    engine, choice = Engine(tiny, batch=16), SamplerChoice(method="euler", guidance=4.0)
    fails = Recipe(seed=1, round=0, index=0).then(Integrate(to=0.5, steps=1), Integrate(to=0.4, steps=1))
    engine.submit("a", [Order(fails, Condition(2), choice)] * 8)  # four cohorts
    good = engine.submit("b", orders(2))
    done = list(step_to_the_end(engine))
    assert len(done) == 2 and len({d.ticket for d in done}) == 2
    assert next(d for d in done if d.ticket == good).error is None
    assert engine.live == 0


@pytest.mark.parametrize("aside", [False, True])
def test_a_failed_decode_fails_its_submission_alone(
    tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, aside: bool
) -> None:
    decode, calls = tiny.decoder.decode, 0

    def first_one_fails(x: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise torch.OutOfMemoryError("no room for the picture")
        return decode(x)

    monkeypatch.setattr(tiny.decoder, "decode", first_one_fails)
    engine = Engine(tiny, batch=8, aside=aside)
    bad, good = engine.submit("a", orders(1, method="euler", steps=1)), engine.submit("b", orders(2, steps=4))
    done = {d.ticket: d for d in step_to_the_end(engine)}
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        _ = done[bad].samples
    assert len(done[good].samples) == 2 and engine.live == 0
    assert "a submission failed" in caplog.text


def test_states_count_until_they_are_decoded(tiny: SiTGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, go_on = tiny.decoder.decode, threading.Event()

    def held_up(x: torch.Tensor) -> torch.Tensor:
        assert go_on.wait(60)
        return decode(x)

    monkeypatch.setattr(tiny.decoder, "decode", held_up)
    engine = Engine(tiny, batch=8, aside=True)
    engine.submit("a", orders(1, method="euler", steps=1))
    slower = engine.submit("b", orders(1, steps=4))
    engine.step()
    under_way = engine.live
    engine.step()
    assert engine.live == under_way > 0
    engine.cancel(slower)
    assert 0 < engine.live < under_way
    go_on.set()
    drain(engine)
    assert engine.live == 0


def test_decoding_aside_gives_the_same_samples(tiny: SiTGenerator) -> None:
    here, aside = Engine(tiny, batch=8), Engine(tiny, batch=8, aside=True)
    for engine in (here, aside):
        for job in "abc":
            engine.submit(job, orders(3, seed=ord(job)))
    one, other = drain(here), drain(aside)
    assert one.keys() == other.keys() and all(same(one[ticket], other[ticket]) for ticket in one)


def test_a_job_of_higher_priority_is_done_sooner(tiny: SiTGenerator) -> None:
    engine = Engine(tiny, batch=8)
    low = engine.submit("low", orders(8), priority=0.5)
    high = engine.submit("high", orders(8), priority=4.0)
    assert [d.ticket for d in step_to_the_end(engine)] == [high, low]


def test_a_priority_out_of_range_is_refused(tiny: SiTGenerator) -> None:
    with pytest.raises(ValueError, match="priority"):
        Engine(tiny).submit("a", orders(1), priority=100.0)
