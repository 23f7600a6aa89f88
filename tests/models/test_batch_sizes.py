"""Which sizes of batch share the full batch's results."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from models.batch_sizes import BatchSizes, halves

ROWS = torch.arange(8.0)


def test_halves_reach_from_one_to_the_full_batch_in_small_steps() -> None:
    assert halves(32) == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    assert halves(1) == (1,)
    for full in range(2, 100):
        sizes = halves(full)
        assert sizes[0] == 1 and sizes[-1] == full
        assert all(a < b <= 2 * a + 1 for a, b in pairwise(sizes))


def test_a_size_whose_rows_come_out_otherwise_is_passed_over() -> None:
    calls: list[tuple[int, int]] = []

    def run(first: int, size: int) -> Tensor:
        calls.append((first, size))
        rows = ROWS[first : first + size]
        return rows + 1e-7 * (size == 2) + 1e-6 * (size == 4 and first > 0)  # 4 is wrong only for the last rows

    sizes = BatchSizes((2, 4, 6, 8), run)
    assert [sizes.fitting(rows) for rows in (1, 2, 3, 5, 6, 7, 8)] == [6, 6, 6, 6, 6, 8, 8]
    assert len(calls) == len(set(calls)), "every size is tried once"
    assert sizes.try_all() == (6, 8)
