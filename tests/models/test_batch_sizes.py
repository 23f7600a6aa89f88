"""Which sizes of batch share the full batch's results."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from sitsearch.models.batch_sizes import BatchSizes, halvings

ROWS = torch.arange(8.0)


def test_halvings_reach_from_one_to_the_full_batch_in_small_steps() -> None:
    assert halvings(32) == (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
    assert halvings(32, 8) == (*range(1, 17), *range(18, 33, 2))
    assert halvings(1) == (1,)
    for full in range(2, 100):
        for parts in (1, 2, 8):
            sizes = halvings(full, parts)
            assert sizes[0] == 1 and sizes[-1] == full
            assert all((b - (a + 1)) * parts <= a for a, b in pairwise(sizes)), "padding adds more than was said"


def test_a_size_whose_rows_come_out_otherwise_is_passed_over() -> None:
    calls: list[tuple[int, int]] = []

    def run(first: int, size: int) -> Tensor:
        calls.append((first, size))
        rows = ROWS[first : first + size]
        return rows + 1e-7 * (size == 2) + 1e-6 * (size == 4 and first > 0)  # 4 is wrong only for the last rows

    sizes = BatchSizes((2, 4, 6, 8), run)
    assert [sizes.fitting(rows) for rows in (1, 2, 3, 5, 6, 7, 8)] == [6, 6, 6, 6, 6, 8, 8]
    assert len(calls) == len(set(calls)), "every size is tried once"
    sizes.try_all()
    assert [size for size in (2, 4, 6, 8) if sizes.alike(size)] == [6, 8]
