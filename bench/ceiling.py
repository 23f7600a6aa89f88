"""(a) The engine's NFE/s against the bare network's at its best batch size, for an offered batch of 1 to 256.

Beside it, the same engine in deterministic mode: what reproducible results cost.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from bench.common import Claim, Report, Setting, Stopwatch, alternate, drain, glyphs, network, orders, ratios, spread
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine

#: By model: trajectories that are offered at once, repetitions, and steps of a trajectory.
SIZES: dict[str, tuple[tuple[int, ...], int, int]] = {
    "glyphs": ((1, 4, 16, 64, 256), 5, 12),
    "SiT-S/2": ((1, 4, 16, 64, 256), 3, 2),
}
BOUND = 0.95


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(a) engine against the bare network")
    for name, (offered, rounds, steps) in SIZES.items():
        if setting.quick:
            offered, rounds, steps = (2, 4), 1, 1
        generator = _model(name, setting)
        bare = {size: _bare(setting, generator, size) for size in offered}
        best = max(bare, key=lambda size: bare[size])
        engine = Engine(generator, batch=max(2, best), deterministic=False)
        deterministic = Engine(generator, batch=max(2, best))
        for count in offered:
            cpu: dict[str, list[float]] = {"bare": [], "engine": [], "deterministic": []}
            found = alternate(
                {
                    "bare": partial(
                        _timed, cpu["bare"], setting, partial(_forwards, generator, best, steps), best * steps
                    ),
                    "engine": partial(
                        _timed, cpu["engine"], setting, partial(_engine, engine, count, steps), count * steps
                    ),
                    "deterministic": partial(
                        _timed,
                        cpu["deterministic"],
                        setting,
                        partial(_engine, deterministic, count, steps),
                        count * steps,
                    ),
                },
                rounds,
            )
            ratio = ratios(found["engine"], found["bare"])
            per_cpu = ratios(cpu["bare"][1:], cpu["engine"][1:])
            row = {
                "model": name,
                "offered": count,
                "best batch": best,
                "bare NFE/s": spread(found["bare"]),
                "engine NFE/s": spread(found["engine"]),
                "ratio": spread(ratio),
                "ratio of CPU time": spread(per_cpu),
                "deterministic / engine": spread(ratios(found["deterministic"], found["engine"])),
            }
            report.rows.append(row)
            if count == max(offered):
                report.claims.append(
                    Claim(f"(a) engine / ceiling at full batch, {name}", spread(ratio)["median"], BOUND)
                )
    return report


def _model(name: str, setting: Setting) -> SiTGenerator:
    if name == "glyphs":
        return glyphs(setting.device)
    overrides = {"depth": 1} if setting.quick else {}
    return network("S/2", setting.device, torch.bfloat16, **overrides)


def _forwards(generator: SiTGenerator, size: int, count: int) -> None:
    x, t = torch.zeros(size, *generator.shape, device=generator.device), torch.full((size,), 0.5)
    rows = generator.unconditional(size)
    for _ in range(count):
        generator.evaluate(x, t, rows)


def _bare(setting: Setting, generator: SiTGenerator, size: int) -> float:
    """NFE/s of the network alone at one batch size."""
    _forwards(generator, size, 1)
    return max(_timed([], setting, partial(_forwards, generator, size, 2), 2 * size) for _ in range(2))


def _engine(engine: Engine, count: int, steps: int) -> None:
    engine.submit("job", orders(count, steps=steps))
    drain(engine)


def _timed(cpu: list[float], setting: Setting, action: Callable[[], None], nfe: int) -> float:
    """NFE/s of an action; its processor seconds an NFE go to `cpu`."""
    with Stopwatch(setting.device) as watch:
        action()
    cpu.append(watch.cpu / nfe)
    return nfe / watch.wall
