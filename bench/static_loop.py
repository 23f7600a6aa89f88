"""(b) The engine against a static-batch sampling loop in the style of the reference implementation.

The loop is the reference's: one `sample_fn` call a batch, torchdiffeq's fixed-step Heun, guidance by a doubled batch,
in float32 or under bf16 autocast, with PyTorch's fused attention. The engine has bf16 weights, eager or compiled, and
as many network rows a forward. Each runs in a process of its own, in turns.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection

import torch
from torch import Tensor
from torchdiffeq import odeint  # type: ignore[import-untyped]

from bench.common import Claim, Report, Setting, Stopwatch, alternate, drain, glyphs, orders, ratios, spread
from sitsearch.models import sit
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.forwards import buckets
from sitsearch.workers.engine.machine import take_machine

STEPS, GUIDANCE, ROUNDS = 3, 1.5, 7
IMAGES = 32
BOUND_FLOAT32, BOUND_AUTOCAST = 3.0, 1.5
FLOAT32, AUTOCAST, EAGER, COMPILED = "loop, float32", "loop, bf16 autocast", "engine, bf16", "engine, bf16 compiled"


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(b) engine against a static-batch loop")
    images, steps, rounds = setting.pick((IMAGES, STEPS, ROUNDS), (2, 1, 1))
    names = [FLOAT32, AUTOCAST, EAGER]
    if setting.compile and not setting.quick:
        names.append(COMPILED)
    with ExitStack() as stack:
        runs = {name: stack.enter_context(_process(name, setting.device, images, steps)) for name in names}
        found = alternate(runs, rounds)
    for name, rates in found.items():
        report.rows.append(
            {
                "what": name,
                "batch": 2 * images,
                "images/s": spread(rates),
                "over float32": spread(ratios(rates, found[FLOAT32])),
                "over autocast": spread(ratios(rates, found[AUTOCAST])),
            }
        )
    for bound, baseline in ((BOUND_FLOAT32, FLOAT32), (BOUND_AUTOCAST, AUTOCAST)):
        value = spread(ratios(found[names[-1]], found[baseline]))["median"]
        report.claims.append(Claim(f"(b) {names[-1]} / {baseline}", value, bound))
    return report


@contextmanager
def _process(name: str, device: str, images: int, steps: int) -> Iterator[Callable[[], float]]:
    """What measures images a second of `name` in a process of its own, as it would run: its memory too."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, name, device, images, steps), daemon=True)
    process.start()
    there.close()  # so that its end is noticed here

    def measure() -> float:
        here.send(None)
        return float(here.recv())

    try:
        yield measure
    finally:
        here.close()
        process.join()


def _serve(pipe: Connection, name: str, device: str, images: int, steps: int) -> None:
    """Measure whenever the other end asks, until it is closed."""
    if name in (FLOAT32, AUTOCAST):
        sit.SHORT = 0  # attention as the reference has it
        generator = glyphs(device, torch.float32)
        action = partial(_loop, generator, images, steps, autocast=name == AUTOCAST)
    else:
        take_machine()
        generator = glyphs(device)
        if name == COMPILED:
            generator.compile()
        engine = Engine(generator, batch=2 * images, buckets=buckets(2 * images) if name == COMPILED else None)
        engine.measure()
        action = partial(_engine, engine, images, steps)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        with Stopwatch(device) as watch:
            action()
        pipe.send(images / watch.wall)


@torch.no_grad()
def _loop(generator: SiTGenerator, images: int, steps: int, *, autocast: bool) -> None:
    """One batch, as the reference's `sample.py` makes it."""
    net, device = generator.net, generator.device
    labels = torch.arange(images, device=device) % generator.config.num_classes
    y = torch.cat([labels, torch.full_like(labels, generator.config.num_classes)])
    z = torch.randn(images, *generator.shape, device=device)

    def drift(t: Tensor, x: Tensor) -> Tensor:
        half = x[: len(x) // 2]
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            out = net(torch.cat([half, half]), t.expand(len(x)), y).float()
        conditional, unconditional = out.chunk(2)
        guided = unconditional + GUIDANCE * (conditional - unconditional)
        return torch.cat([guided, guided])

    times = torch.linspace(0, 1, steps + 1, device=device)
    final = odeint(drift, torch.cat([z, z]), times, method="heun2")[-1]
    generator.decoder.decode(final[:images])


def _engine(engine: Engine, images: int, steps: int) -> None:
    engine.submit("job", orders(images, steps=steps, method="heun", guidance=GUIDANCE))
    drain(engine)
