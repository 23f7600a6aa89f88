"""The network's forwards: what sizes they are padded to, and how many rows a second they make."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sitsearch.models.batch_sizes import BatchSizes, halvings
from sitsearch.models.generator import Generator, Rows

#: Forwards that are timed at the start, of each size.
MEASURED = 3
#: Of a full forward's rows a second, those of one filled to three quarters must be so many, or it is filled up.
WORTH = 0.97
#: Sizes of a deterministic engine's forwards, from half of one to the whole.
FINE = 8
#: Of a forward's rows, in eighths: the sizes of `buckets`.
EIGHTHS = (1, 2, 4, 6, 8)
#: Seed of the rows with which sizes of forwards are compared.
PROBE_SEED = 0


def buckets(batch: int) -> tuple[int, ...]:
    """The few sizes that forwards are padded to where every new size would be compiled."""
    return tuple(sorted({max(1, batch * eighths // 8) for eighths in EIGHTHS}))


def filling(batch: int, rows_per_second: Callable[[int], float]) -> int:
    """Rows that forwards are filled with: three quarters of `batch`, unless a full one makes more rows a second.

    Where each row costs the same, as on a CPU from some rows on, what is added to a forward ends no sooner for it, and
    what is served first ends later. On a device that has room for more, a full forward is the faster way.
    """
    part = max(2, batch * 3 // 4)
    return part if rows_per_second(part) >= WORTH * rows_per_second(batch) else batch


class Forwards:
    """One generator's forwards, each padded to a size that was tried.

    Args:
        generator, batch, deterministic, buckets: see `Engine`.

    Attributes:
        buckets: the only sizes that forwards are padded to; none are any.
        warm_up_rows: network rows of warm-up, and of trying out sizes.
    """

    def __init__(self, generator: Generator, batch: int, *, deterministic: bool, buckets: Sequence[int] | None) -> None:
        self._generator, self._batch = generator, batch
        self.buckets = tuple(sorted(buckets or (halvings(batch, FINE) if deterministic else ())))
        self._sizes = BatchSizes(self.buckets, self._probe) if deterministic else None
        self.warm_up_rows = 0

    def evaluate(self, x: Tensor, t: Tensor, rows: Rows) -> Tensor:
        """`Generator.evaluate` of `[B, C, H, W]` in a forward of a size that was tried."""
        used = len(x)
        size = self._padded_size(used)
        if size > used:
            x, t, rows = _padded(x, size), _padded(t, size), tuple(_padded(part, size) for part in rows)
        return self._generator.evaluate(x, t, rows)[:used]

    def warm_up(self) -> None:
        """Run every size once or more, so that no later forward is the first of its size."""
        if self._sizes is not None:
            self._sizes.try_all()
            return
        for rows in self.buckets or (self._batch,):
            self._blank(rows)
            self._blank(rows)  # as trying does: a CUDA graph is recorded in its second run

    def rows_per_second(self, rows: int) -> float:
        """In the fastest of some forwards of so many rows, which are padded as any."""
        size, seconds = self._padded_size(rows), []
        self._blank(size)
        for _ in range(MEASURED):
            self._synchronize()
            begin = time.perf_counter()
            self._blank(size)
            self._synchronize()
            seconds.append(time.perf_counter() - begin)
        return rows / min(seconds)

    def _padded_size(self, rows: int) -> int:
        if self._sizes is not None:
            return self._sizes.fitting(rows)
        return next((bucket for bucket in self.buckets if bucket >= rows), rows)

    def _probe(self, first: int, size: int) -> Tensor:
        """`BatchSizes`' rows: random states at random times, without condition."""
        self.warm_up_rows += size
        random, device = torch.Generator().manual_seed(PROBE_SEED), self._generator.device
        x = torch.randn(self._batch, *self._generator.shape, generator=random)
        t = torch.rand(self._batch, generator=random)
        part = slice(first, first + size)
        return self._generator.evaluate(x[part].to(device), t[part].to(device), self._generator.unconditional(size))

    def _blank(self, rows: int) -> Tensor:
        self.warm_up_rows += rows
        device, shape = self._generator.device, self._generator.shape
        x, t = torch.zeros(rows, *shape, device=device), torch.full((rows,), 0.5, device=device)
        return self._generator.evaluate(x, t, self._generator.unconditional(rows))

    def _synchronize(self) -> None:
        if self._generator.device.type == "cuda":
            torch.cuda.synchronize(self._generator.device)


def _padded(rows: Tensor, size: int) -> Tensor:
    """`rows` with zeros after them, up to `size` in all."""
    return torch.cat([rows, rows.new_zeros(size - len(rows), *rows.shape[1:])])
