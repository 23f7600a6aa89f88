"""What all benchmarks share: interleaved repetition, spread, models, work, and the form of a report."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sitsearch.models.catalog import load_generator
from sitsearch.models.condition import Condition
from sitsearch.models.generator import Generator, Rows, SiTGenerator
from sitsearch.models.sit import SiT, SiTConfig
from sitsearch.workers.engine.engine import Engine
from sitsearch.workers.engine.machine import network_dtype
from sitsearch.workers.engine.orders import Order
from sitsearch.workers.engine.submissions import Done
from sitsearch.workers.jobs.recipe import Integrate, Recipe
from sitsearch.workers.jobs.request import SamplerChoice

#: Where the weights of random networks come from.
SEED = 0
OUT = Path("docs/benchmarks")


@dataclass(frozen=True)
class Setting:
    """How to measure.

    Attributes:
        device: `cpu` or `cuda`.
        quick: the smallest run that goes through every line, for tests; its figures mean nothing.
        compile: compile networks where a part compares engines.
        out: where figures are written, and read where one part needs another's.
    """

    device: str = "cpu"
    quick: bool = False
    compile: bool = True
    out: Path = OUT

    def pick(self, whole: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else whole


@dataclass(frozen=True)
class Claim:
    """A figure that issue or documentation set a bound for.

    Attributes:
        what: the figure, in words.
        value, bound: what was measured, and what was asked.
        least: the bound is the least, not the most, that the value may be.
    """

    what: str
    value: float
    bound: float
    least: bool = True

    @property
    def held(self) -> bool:
        """The bound was kept."""
        return self.value >= self.bound if self.least else self.value <= self.bound


@dataclass
class Report:
    """What a part measured: rows of one table, and what it claims."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of repetitions."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that `part` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def alternate(what: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure several things in turns, so that what else the machine does falls on all of them alike."""
    found: dict[str, list[float]] = {name: [] for name in what}
    for measure in what.values():
        measure()  # warm-up
    for _ in range(rounds):
        for name, measure in what.items():
            found[name].append(measure())
    return found


def ratios(over: Sequence[float], under: Sequence[float]) -> list[float]:
    """Turn by turn."""
    return [a / b for a, b in zip(over, under, strict=True)]


@dataclass
class Stopwatch:
    """Seconds of the wall and of the processor; on CUDA, once the device is done."""

    device: str
    wall: float = 0.0
    cpu: float = 0.0

    def __enter__(self) -> Stopwatch:
        self._synchronize()
        self._begin = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self._synchronize()
        self.wall, self.cpu = time.perf_counter() - self._begin[0], time.process_time() - self._begin[1]

    def _synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def network(preset: str, device: str, dtype: torch.dtype, **overrides: int | bool) -> SiTGenerator:
    """A SiT with random weights that are nowhere zero, so that nothing can be skipped."""
    torch.manual_seed(SEED)
    net = SiT(SiTConfig.preset(preset, **overrides))
    for parameter in net.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.02)
    net.eval().requires_grad_(False)
    return SiTGenerator(net.to(device, dtype), interpolant="Linear", prediction="velocity")


def glyphs(device: str = "cpu", dtype: torch.dtype | None = None) -> SiTGenerator:
    """The bundled generator; None is the precision that the service takes on the device."""
    generator = load_generator("glyphs", device=device, dtype=dtype or network_dtype("auto", device))
    assert isinstance(generator, SiTGenerator)
    return generator


class Instant:
    """A generator whose network takes no time: what is left is the engine.

    Args:
        like: the generator whose other properties it has.
    """

    def __init__(self, like: Generator) -> None:
        self._like, self.rows_evaluated = like, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._like, name)

    def evaluate(self, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        """See `Generator.evaluate`; the field is 0."""
        self.rows_evaluated = len(x)
        return torch.zeros_like(x)


def orders(count: int, *, steps: int, method: str = "euler", guidance: float = 1.0, seed: int = 0) -> list[Order]:
    """Whole trajectories."""
    choice, whole = SamplerChoice(method=method, steps=steps, guidance=guidance), Integrate(to=1.0, steps=steps)
    return [Order(Recipe(seed=seed, round=0, index=i).then(whole), Condition(i % 10), choice) for i in range(count)]


def drain(engine: Engine) -> list[Done]:
    """Step until nothing is left."""
    done = []
    while engine.busy:
        done += engine.step()
    return done


def machine(device: str) -> dict[str, Any]:
    """Where figures come from."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
        name = f"{model}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return {
        "device": name,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }
