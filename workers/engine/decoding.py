"""Finished cohorts become samples: at once, or on a thread and a CUDA stream of their own beside the next forward."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from sitsearch.workers.engine.cohort import Cohort
from sitsearch.workers.engine.trajectory import Sample


class Decoding:
    """Cohorts that are decoded, one after the other.

    Args:
        device: where their states are.
        aside: on a thread of its own; None is on CUDA only, as forwards use every core of a CPU.
    """

    def __init__(self, device: torch.device, *, aside: bool | None) -> None:
        on_cuda = device.type == "cuda"
        self._thread = ThreadPoolExecutor(1, "decode") if (on_cuda if aside is None else aside) else None
        self._stream = torch.cuda.Stream(device) if on_cuda and self._thread else None
        self._under_way: deque[tuple[Cohort, Future[list[Sample]]]] = deque()

    def __len__(self) -> int:
        return len(self._under_way)

    def add(self, cohort: Cohort) -> None:
        """Have one decoded."""
        if self._thread is not None:
            self._under_way.append((cohort, self._thread.submit(self._decode, cohort, self._ready())))
            return
        made: Future[list[Sample]] = Future()
        try:
            made.set_result(cohort.samples())
        except Exception as error:
            made.set_exception(error)
        self._under_way.append((cohort, made))

    def ended(self, *, wait: bool) -> Iterator[tuple[Cohort, Future[list[Sample]]]]:
        """Those that are decoded, in order; with `wait`, not before the next one is, if one is being."""
        while self._under_way and (wait or self._under_way[0][1].done()):
            cohort, made = self._under_way.popleft()
            made.exception()  # waits
            wait = False
            yield cohort, made

    def _ready(self) -> torch.cuda.Event | None:
        """An event after all that was queued on the device so far."""
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    @torch.inference_mode()
    def _decode(self, cohort: Cohort, ready: torch.cuda.Event | None) -> list[Sample]:
        """What the decoding thread does; its copy to the CPU waits for this stream alone."""
        if self._stream is None or ready is None:
            return cohort.samples()
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(ready)
            samples = cohort.samples()
            self._stream.synchronize()  # before the cohort's memory may be used again
        return samples
