"""Every random number of training, as a function of the seed, the step and the row within the whole batch.

A row's numbers are one stream of Philox (see models/noise.py), so no generator's state needs saving, and each process
draws the rows that are its own and no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

#: Second words of the Philox keys: far from the purposes of models/noise.py.
ROWS = 2**63 + 1
EPOCHS = 2**63 + 2

#: Two uniform numbers and a normal one, each `[b]`, to times `[b]` in [0, 1].
Times = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Rows:
    """What is drawn for b rows of a step.

    Attributes:
        index: `[b]` int64, which samples.
        uniforms: `[b, K]` in [0, 1), the numbers that the data augments with.
        dropped: `[b]` bool, whose label is replaced by the null class.
        t: `[b]`, times.
        noise: `[b, C, H, W]`, N(0, 1).
    """

    index: Tensor
    uniforms: Tensor
    dropped: Tensor
    t: Tensor
    noise: Tensor

    def __getitem__(self, part: slice) -> Rows:
        return Rows(*(getattr(self, f.name)[part] for f in fields(self)))


@dataclass(frozen=True)
class Plan:
    """Draws the rows of any step.

    Attributes:
        seed: in [0, 2^64).
        batch: rows of a step, over all processes.
        samples: how many there are to choose from.
        order: `shuffled` goes through all samples in a new order each epoch, batches running on across its end;
            `replacement` draws each row's sample independently.
        uniforms: numbers a row for the data.
        shape: `(C, H, W)` of the noise.
        class_dropout: probability.
        times: makes a time of two uniform numbers and a normal one.
    """

    seed: int
    batch: int
    samples: int
    order: Literal["shuffled", "replacement"]
    uniforms: int
    shape: tuple[int, int, int]
    class_dropout: float
    times: Times

    def __call__(self, step: int, rows: Sequence[int]) -> Rows:
        """The given rows (of `batch`) of step `step`."""
        drawn = [self._row(step, row) for row in rows]
        uniform, normal, noise = (torch.from_numpy(np.stack(column)) for column in zip(*drawn, strict=True))
        if self.order == "shuffled":
            index = torch.tensor([self._place(step * self.batch + row) for row in rows])
        else:
            index = (uniform[:, 0].double() * self.samples).long()
        return Rows(
            index=index,
            uniforms=uniform[:, 4:].float(),
            dropped=uniform[:, 1] < self.class_dropout,
            t=self.times(uniform[:, 2].float(), uniform[:, 3].float(), normal[:, 0]),
            noise=noise,
        )

    def _row(self, step: int, row: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        generator = philox(self.seed, ROWS, row, step)
        uniform = generator.random(4 + self.uniforms)
        normal = generator.standard_normal(1, dtype=np.float32)
        return uniform, normal, generator.standard_normal(self.shape, dtype=np.float32)

    def _place(self, position: int) -> int:
        epoch, place = divmod(position, self.samples)
        return int(permutation(self.seed, epoch, self.samples)[place])


@lru_cache(maxsize=2)
def permutation(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The order of the samples in an epoch, `[samples]`."""
    return philox(seed, EPOCHS, epoch, 0).permutation(samples)


def philox(seed: int, purpose: int, index: int, step: int) -> np.random.Generator:
    """The generator of one stream; distinct arguments share no number."""
    key, counter = np.array([seed, purpose], dtype=np.uint64), np.array([0, index, step, 0], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def uniform_times(low: float, high: float) -> Times:
    """Uniform on [low, high]."""
    return lambda u, _, __: low + (high - low) * u


def logit_normal_times(low: float, high: float, mean: float, std: float, uniform: float) -> Times:
    """Logit-normal (SD3, arXiv 2403.03206, equation 19) with a share of uniform ones, so that the ends are seen."""

    def times(u: Tensor, choice: Tensor, z: Tensor) -> Tensor:
        return low + (high - low) * torch.where(choice < uniform, u, torch.sigmoid(z * std + mean))

    return times
