"""(b) The engine against a static-batch sampling loop in the style of the reference implementation.

The loop is the reference's: one `sample_fn` call a batch, torchdiffeq's fixed-step Heun, guidance by a doubled batch,
in float32 or under bf16 autocast. The engine has bf16 weights, eager or compiled, and as many network rows a forward.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torchdiffeq import odeint  # type: ignore[import-untyped]

from bench.common import Claim, Report, Setting, Stopwatch, alternate, drain, glyphs, orders, ratios, spread
from models.generator import SiTGenerator
from workers.engine import Engine

STEPS, GUIDANCE, ROUNDS = 3, 1.5, 5
IMAGES = 32
BOUND_FLOAT32, BOUND_AUTOCAST = 3.0, 1.5


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(b) engine against a static-batch loop")
    images, steps, rounds = setting.pick((IMAGES, STEPS, ROUNDS), (2, 1, 1))
    plain, half = glyphs(setting.device, torch.float32), glyphs(setting.device)
    candidates: dict[str, Callable[[], float]] = {
        "loop, float32": partial(_rate, setting, images, partial(_loop, plain, images, steps, autocast=False)),
        "loop, bf16 autocast": partial(_rate, setting, images, partial(_loop, plain, images, steps, autocast=True)),
        "engine, bf16": partial(_rate, setting, images, partial(_engine, half, images, steps)),
    }
    best = "engine, bf16"
    if setting.compile and not setting.quick:
        compiled = glyphs(setting.device)
        compiled.compile()
        best = "engine, bf16 compiled"
        candidates[best] = partial(_rate, setting, images, partial(_engine, compiled, images, steps))
    found = alternate(candidates, rounds)
    for name, rates in found.items():
        report.rows.append(
            {
                "what": name,
                "batch": 2 * images,
                "images/s": spread(rates),
                "over float32": spread(ratios(rates, found["loop, float32"])),
                "over autocast": spread(ratios(rates, found["loop, bf16 autocast"])),
            }
        )
    for bound, baseline in ((BOUND_FLOAT32, "loop, float32"), (BOUND_AUTOCAST, "loop, bf16 autocast")):
        value = spread(ratios(found[best], found[baseline]))["median"]
        report.claims.append(Claim(f"(b) {best} / {baseline}", value, bound))
    return report


def _rate(setting: Setting, images: int, action: Callable[[], None]) -> float:
    with Stopwatch(setting.device) as watch:
        action()
    return images / watch.wall


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


def _engine(generator: SiTGenerator, images: int, steps: int) -> None:
    engine = Engine(generator, batch=2 * images)
    engine.submit("job", orders(images, steps=steps, method="heun", guidance=GUIDANCE))
    drain(engine)
