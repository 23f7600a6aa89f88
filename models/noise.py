"""Noise as a function of a few integers: the same on every device and every machine, with no live generator kept.

Philox is a counter-based generator: a key names a stream, and streams of different keys are independent. The key is
hashed from all the words by numpy's SeedSequence, so two different tuples give unrelated noise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

#: What a draw is for; part of the key, so that a start noise never equals a step's noise.
START, STEP = 0, 1


def _normal(words: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    for word in words:
        if word < 0:
            raise ValueError(f"the words of a noise must not be negative, not {word}")
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))
    return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def gaussian(seed: int, round: int, index: int, shape: tuple[int, ...]) -> Tensor:
    """The start noise of candidate `index` of `round` in the job of `seed`: iid N(0, 1), `shape`, float32, on the CPU.

    Raises:
        ValueError: a word is negative.
    """
    # SeedSequence reads a list of 32-bit words: the counts keep (1, 0) and (0, 1) of different widths apart.
    return _normal((START, seed & 0xFFFFFFFF, seed >> 32, round, index), shape)
