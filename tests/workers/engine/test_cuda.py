"""What holds on a GPU alone: run where torch sees one, skipped elsewhere.

`SITSEARCH_TEST_DEVICE=cuda pytest tests/workers/engine` runs the engine's other tests there too.
"""

from __future__ import annotations

import pytest
import torch

from sitsearch.models.catalog import load_generator, load_verifier
from sitsearch.models.condition import Condition
from sitsearch.models.generator import Generator
from sitsearch.models.verifiers.scoring import Scorer
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import buckets
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.trajectory import Sample
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice
from sitsearch.workers.local import sample_all, search
from tests.workers.engine.test_engine import drain, orders, same

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

VERIFIERS = ("classifier", "auditor", "clip_score", "clip_class")
#: A picture's brightness, 0 to 255, may differ by so much between devices in float32; and a score.
BRIGHTNESS, SCORE = 2, 2e-3


@pytest.fixture
def exact_float32() -> None:
    """Matrix products of float32 in float32, as on the CPU."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def glyphs(device: str = "cuda", dtype: torch.dtype = torch.float32) -> Generator:
    return load_generator("glyphs", device=device, dtype=dtype)


def images(samples: tuple[Sample, ...]) -> torch.Tensor:
    return torch.stack([sample.image for sample in samples]).int()


@pytest.mark.parametrize("method", ["euler", "heun", "dopri5", "euler_maruyama", "heun_sde", "glass"])
def test_a_gpu_makes_the_pictures_that_a_cpu_makes(exact_float32: None, method: str) -> None:
    asked = orders(6, method=method, steps=6, guidance=1.5, label=16)
    here, there = (sample_all(Engine(glyphs(device), batch=16), asked) for device in ("cpu", "cuda"))
    assert (images(here) - images(there)).abs().max() <= BRIGHTNESS
    assert [(s.nfe, s.forwards) for s in here] == [(s.nfe, s.forwards) for s in there]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_result_does_not_depend_on_what_shares_the_forward(dtype: torch.dtype, compiled: bool) -> None:
    generator = glyphs(dtype=dtype)
    sizes = None
    if compiled:
        generator.compile()
        sizes = buckets(16)
    alone = sample_all(Engine(generator, batch=16, buckets=sizes), orders(3, steps=2))
    engine = Engine(generator, batch=16, buckets=sizes)
    engine.measure()
    engine.submit("a", orders(7, seed=9, label=30, steps=3))
    engine.step()
    engine.submit("b", orders(2, seed=8, guidance=1.0, method="euler", steps=5))
    engine.submit("d", orders(3, seed=7, guidance=1.0, method="euler_maruyama", steps=7))
    ticket = engine.submit("c", orders(3, steps=2))
    assert same(drain(engine)[ticket], alone)


def test_a_compiled_network_says_what_it_says_uncompiled() -> None:
    plain, graphs = glyphs(), glyphs()
    graphs.compile()
    x, t = torch.randn(8, *plain.shape, device="cuda"), torch.linspace(0.1, 0.9, 8, device="cuda")
    rows = plain.rows([Condition(i) for i in range(8)])
    with torch.inference_mode():
        for _ in range(3):  # eagerly, recorded, replayed
            first = graphs.evaluate(x, t, rows)
        kept = first.clone()
        graphs.evaluate(x + 1, t, rows)
        assert torch.equal(first, kept), "what was handed out is not overwritten by the next forward"
        torch.testing.assert_close(first, plain.evaluate(x, t, rows), atol=2e-3, rtol=2e-3)


def test_a_trajectory_in_parts_is_the_whole_one() -> None:
    choice = SamplerChoice(method="euler", steps=6, guidance=1.0)
    whole = Recipe(seed=1, round=0, index=0).then(Integrate(to=1.0, steps=6))
    cut = Recipe(seed=1, round=0, index=0).then(Integrate(to=0.5, steps=3), Integrate(to=1.0, steps=3))
    engine = Engine(glyphs(), batch=16)
    sample_all(engine, [Order(cut.prefix(1), Condition(2), choice)])
    (went_on,) = sample_all(engine, [Order(cut, Condition(2), choice, known=1, evaluated=True)])
    (at_once,) = sample_all(engine, [Order(whole, Condition(2), choice)])
    assert went_on.nfe_again == 0 and went_on.x.is_cuda
    torch.testing.assert_close(went_on.x, at_once.x, atol=1e-4, rtol=1e-4)


def test_work_that_does_not_fit_waits_and_what_is_cancelled_frees_its_memory() -> None:
    generator = glyphs(dtype=torch.bfloat16)
    engine = Engine(generator, batch=32, live_bytes=200_000)
    gone = engine.submit("a", orders(64, steps=4))
    kept = engine.submit("b", orders(16, steps=4, seed=2))
    engine.step()
    engine.cancel(gone)
    done = drain(engine)
    assert set(done) == {kept} and engine.live == 0
    assert same(done[kept], sample_all(Engine(generator, batch=32), orders(16, steps=4, seed=2)))


@pytest.mark.parametrize("name", VERIFIERS)
def test_a_verifier_says_there_what_it_says_here(exact_float32: None, name: str) -> None:
    samples = sample_all(Engine(glyphs(), batch=32), orders(24, method="euler", steps=4, guidance=1.0, label=16))
    pictures, asked = images(samples).to(torch.uint8), [Condition(16, "the letter Q")] * 24
    here, there = (
        Scorer(load_verifier(name, device=device), batch=16).score(pictures, asked) for device in ("cpu", "cuda")
    )
    assert there == pytest.approx(here, abs=SCORE * max(1.0, max(map(abs, here))))


@pytest.mark.parametrize("algorithm", ["random", "fk_steering", "paths", "zero_order"])
def test_a_search_runs_there(algorithm: str) -> None:
    found = search(
        glyphs(dtype=torch.bfloat16),
        load_verifier("classifier", device="cuda"),
        algorithm,
        240,
        condition=Condition(16, "the letter Q"),
        sampler={"steps": 6, "guidance": 1.0} | ({} if algorithm == "fk_steering" else {"method": "euler"}),
    )
    assert found.result.images[0].candidate.recipe.finished and found.images.shape == (1, 32, 32, 3)
    assert found.result.images[0].score > -1.0
