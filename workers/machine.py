"""A process that computes puts its machine to use: its cores, and the memory that its tensors free."""

from __future__ import annotations

import atexit
import ctypes
import gc
import os
import sys

import torch

#: `mallopt` parameters of glibc's malloc.h, and what they are set to.
_MALLOPT = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: do not give freed memory back
    -2: 64 * 2**20,  # M_TOP_PAD: ask for this much at a time
    -4: 0,  # M_MMAP_MAX: no mapping of its own for a large tensor
}


def take_machine(threads: int | None = None) -> None:
    """Let torch use so many threads, and keep the memory of tensors.

    Args:
        threads: None is one for every core, whatever `OMP_NUM_THREADS` says (Ray sets it to 1).

    By default glibc maps every tensor of more than some 100 KiB anew and the kernel zeroes it page by page, which takes
    a third of a small network's forward on the CPU. The price is that the process stays as large as it ever was.
    """
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        for parameter, value in _MALLOPT.items():
            libc.mallopt(parameter, value)


def keep_what_is_made() -> None:
    """Have Python's garbage collector pass over all that lives now.

    Compiling a network leaves close to a million objects behind, and to look through them takes two seconds, which some
    later forward would wait for.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)
