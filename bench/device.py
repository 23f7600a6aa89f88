"""(f) Model FLOPs utilisation: the engine's rows a second times the network's FLOPs, over the measured bf16 peak.

The peak is that of the largest square bf16 matrix product that pays, measured in the same run: what this device gives
any program, not what its data sheet says. On CUDA the network is SiT-XL/2 with random weights at 256x256 (latents
32x32), with and without decoding by a VAE of Stable Diffusion's shape, also with random weights; no file, network or
cluster is needed: `python -m bench f --device cuda`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from bench.common import Claim, Report, Setting, Stopwatch, alternate, drain, glyphs, network, orders, spread
from sitsearch.models.autoencoder import LatentImages
from sitsearch.models.generator import SiTGenerator
from sitsearch.workers.engine.engine import Engine

#: Stable Diffusion's VAE, as diffusers' `AutoencoderKL` describes it.
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 256,
    "scaling_factor": 0.18215,
}
BOUND_CUDA = 0.6


def run(setting: Setting) -> Report:
    """See the module."""
    report = Report("(f) utilisation")
    size, rounds = (8192, 5) if setting.device == "cuda" else setting.pick((1024, 3), (64, 1))
    peak = partial(_matmul, setting, size)
    for name, generator, batch, count, steps in _cases(setting):
        row: dict[str, Any] = {"model": name, "batch": batch}
        engine = Engine(generator, batch=batch, buckets=(batch,))  # full ones only: nothing else is compiled
        engine.measure()
        found = alternate({"peak": peak, "engine": partial(_sampling, setting, engine, count, steps)}, rounds)
        flops = 2 * generator.config.macs
        utilisation = [flops * rate / best for rate, best in zip(found["engine"], found["peak"], strict=True)]
        row |= {
            "rows/s": spread(found["engine"]),
            "TFLOP/s": spread([flops * rate / 1e12 for rate in found["engine"]]),
            "matmul TFLOP/s": spread([best / 1e12 for best in found["peak"]]),
            "MFU": spread(utilisation),
        }
        report.rows.append(row)
        if setting.device == "cuda" and "VAE" not in name:
            report.claims.append(Claim(f"(f) MFU of {name}", spread(utilisation)["median"], BOUND_CUDA))
    if setting.device != "cuda":
        report.notes.append("no GPU was at hand; for one: python -m bench f --device cuda")
    return report


def _cases(setting: Setting) -> list[tuple[str, SiTGenerator, int, int, int]]:
    """Name, generator, rows of a forward, trajectories and steps."""
    if setting.device != "cuda":
        small = network("S/2", "cpu", torch.bfloat16, **({"depth": 1} if setting.quick else {}))
        batch = setting.pick(16, 2)
        return [("glyphs", glyphs(), 4 * batch, 4 * batch, 2), ("SiT-S/2", small, batch, batch, 2)]
    cases = []
    for batch in (64, 128, 256):
        generator = network("XL/2", "cuda", torch.bfloat16)
        if setting.compile:
            generator.compile()
        cases.append(("SiT-XL/2", generator, batch, 2 * batch, 20))
    decoded = network("XL/2", "cuda", torch.bfloat16)
    if setting.compile:
        decoded.compile()
    decoded.decoder = _decoder()
    return [*cases, ("SiT-XL/2 and VAE", decoded, 128, 256, 20)]


def _decoder() -> LatentImages:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_config(VAE).to("cuda", torch.bfloat16).eval().requires_grad_(False)  # type: ignore[no-untyped-call]
    return LatentImages(vae, batch=32)


def _matmul(setting: Setting, size: int) -> float:
    """FLOP/s of bf16 matrix products."""
    a, b = (torch.randn(size, size, dtype=torch.bfloat16, device=setting.device) for _ in range(2))
    repeats = 20 if setting.device == "cuda" else 3
    with Stopwatch(setting.device) as watch:
        for _ in range(repeats):
            a @ b
    return repeats * 2 * size**3 / watch.wall


def _sampling(setting: Setting, engine: Engine, count: int, steps: int) -> float:
    """Network rows a second of whole trajectories, images included."""
    before = engine.forwards
    with Stopwatch(setting.device) as watch:
        engine.submit("job", orders(count, steps=steps))
        drain(engine)
    return (engine.forwards - before) / watch.wall
