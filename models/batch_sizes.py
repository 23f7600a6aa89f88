"""Sizes of batch among which a row's result is the same, bit for bit.

Libraries choose the kernels of a matrix product by its shape, and another kernel may add up in another order. Padding
every batch to one size is the sure way to reproducible results; but kernels are few, so most sizes share them. Which do
is tried out: random rows are computed in a batch of that size, and must come out as they do of the full batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def halvings(full: int, parts: int = 2) -> tuple[int, ...]:
    """`full` and what halving it gives, again and again, with `parts` steps from each half to its whole.

    A batch that is padded to the next of them becomes larger by 1/`parts` of itself at most.
    """
    sizes, size = {1}, full
    while size > 1:
        sizes |= {max(1, size * (parts + part) // (2 * parts)) for part in range(parts + 1)}
        size //= 2
    return tuple(sorted(sizes))


class BatchSizes:
    """The sizes among which results are the same, tried out as they are wanted.

    Args:
        sizes: what to try; the largest is the full batch, with which the others are compared.
        run: computes rows `first` to `first + size` of some fixed random rows, as many as the full batch has, as a
            batch of their own; row by row the results, `[size, ...]`.
    """

    def __init__(self, sizes: Sequence[int], run: Callable[[int, int], Tensor]) -> None:
        self.full = max(sizes)
        self._sizes, self._run = sorted(sizes), run
        self._alike: dict[int, bool] = {self.full: True}
        self._expected: Tensor | None = None

    def fitting(self, rows: int) -> int:
        """The smallest size that holds so many rows, at most the full batch, and gives them its results."""
        return next(size for size in self._sizes if size >= rows and self.alike(size))

    def alike(self, size: int) -> bool:
        """A batch of this size gives its rows the same results as the full batch does, wherever they are in it."""
        if size not in self._alike:
            if self._expected is None:
                self._expected = self._run(0, self.full)
            expected, last = self._expected, self.full - size
            self._alike[size] = torch.equal(self._run(0, size), expected[:size]) and torch.equal(
                self._run(last, size), expected[last:]
            )
        return self._alike[size]

    def try_all(self) -> None:
        """Try what was not tried yet."""
        for size in self._sizes:
            self.alike(size)
        self._expected = None
