"""Noise as a pure function of a few integers: the same on every machine and device, with no live generator kept.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a counter-based generator: block `c` of
stream `k` is a bijection of `(k, c)`. A draw's key is `(seed, purpose)` and the upper words of its counter are
`(index, round, step)`; the lowest word counts the blocks within the draw. No two draws share a block, so there is
nothing to collide, whatever their shapes.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

WORD = 2**64


class Purpose(IntEnum):
    """What a draw is for: the second word of the key. Numbers are part of every recipe's meaning; never reuse one."""

    START = 0
    STEP = 1


def draw(purpose: Purpose, seed: int, round: int, index: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Independent N(0, 1) numbers of `shape`, float32 on the CPU, for any distinct tuple of the other arguments.

    Raises:
        ValueError: a number is not in [0, 2^64).
    """
    for name, value in (("seed", seed), ("round", round), ("index", index), ("step", step)):
        if not 0 <= value < WORD:
            raise ValueError(f"{name} must be in [0, 2^64), not {value}")
    bits = np.random.Philox(
        key=np.array([seed, purpose], dtype=np.uint64), counter=np.array([0, index, round, step], dtype=np.uint64)
    )
    return torch.from_numpy(np.random.Generator(bits).standard_normal(shape, dtype=np.float32))


def gaussian(seed: int, round: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """The start noise of candidate `index` of `round` in the job of `seed`: N(0, 1), `shape`, float32, on the CPU.

    Raises:
        ValueError: a number is not in [0, 2^64).
    """
    return draw(Purpose.START, seed, round, index, 0, shape)


def step_noise(seed: int, round: int, index: int, step: int, shape: tuple[int, ...]) -> Tensor:
    """Draw number `step` of an SDE sampler for the same candidate; never equal to its start noise.

    Raises:
        ValueError: a number is not in [0, 2^64).
    """
    return draw(Purpose.STEP, seed, round, index, step, shape)
