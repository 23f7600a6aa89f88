"""Noise as a pure function of a few integers: the same on every machine and device, with no live generator kept.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") is a counter-based generator: block `c` of
stream `k` is a bijection of `(k, c)`. A draw's key is `(seed, purpose)` and the upper words of its counter are
`(index, round, step)`; the lowest word counts the blocks within the draw. No two draws share a block, so there is
nothing to collide, whatever their shapes.
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

WORD = 2**64


class Purpose(IntEnum):
    """What a draw is for: the second word of the key. Numbers are part of every recipe's meaning; never reuse one."""

    START = 0
    STEP = 1
    NEIGHBOR = 2
    BLEND = 3
    NUDGE = 4
    RENOISE = 5
    PERTURB = 6


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


def neighbor(x: Tensor, cosine: float, seed: int, round: int, index: int) -> Tensor:
    """A neighbour of the start noise `x`, on the sphere of its norm: `|x| (c u + sqrt(1 - c^2) w)`.

    u = x/|x|, w a random unit vector orthogonal to it; the distance is `|x| sqrt(2 - 2c)` (zero-order search).

    Args:
        x: any shape, not all 0.
        cosine: c in [-1, 1].
    """
    wide = x.double()
    norm = wide.norm()
    unit = wide / norm
    direction = draw(Purpose.NEIGHBOR, seed, round, index, 0, tuple(x.shape)).double()
    direction -= (direction * unit).sum() * unit
    direction /= direction.norm()
    return (norm * (cosine * unit + math.sqrt(1 - cosine**2) * direction)).to(x.dtype)


def blend(x: Tensor, strength: float, seed: int, round: int, index: int) -> Tensor:
    """`sqrt(1 - s^2) x + s eps`: N(0, I) again when `x` is (EvoSearch's mutation of start noises)."""
    return math.sqrt(1 - strength**2) * x + strength * draw(Purpose.BLEND, seed, round, index, 0, tuple(x.shape))


def nudge(shape: tuple[int, ...], radius: float, seed: int, round: int, index: int) -> Tensor:
    """`U(0, radius) sqrt(d) u`, u a random unit vector of d dimensions (epsilon-greedy search)."""
    numbers = draw(Purpose.NUDGE, seed, round, index, 0, (math.prod(shape) + 1,))
    uniform = 0.5 * (1 + math.erf(float(numbers[0]) / math.sqrt(2)))
    direction = numbers[1:].reshape(shape)
    return radius * uniform * math.sqrt(direction.numel()) * direction / direction.norm()


def renoise_noise(seed: int, round: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1), with which a state is carried to an earlier time."""
    return draw(Purpose.RENOISE, seed, round, index, 0, shape)


def perturb_noise(seed: int, round: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """N(0, 1), by which a state is moved at its own time."""
    return draw(Purpose.PERTURB, seed, round, index, 0, shape)
