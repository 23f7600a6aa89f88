"""A process that computes puts its machine to use: its cores, and the memory that its tensors free."""

from __future__ import annotations

import atexit
import ctypes
import gc
import math
import os
import sys
from pathlib import Path

import torch

#: `mallopt` parameters of glibc's malloc.h, and what they are set to.
_MALLOPT = {
    -1: 2**31 - 1,  # M_TRIM_THRESHOLD: do not give freed memory back
    -2: 64 * 2**20,  # M_TOP_PAD: ask for this much at a time
    -4: 0,  # M_MMAP_MAX: no mapping of its own for a large tensor
}
#: What torch calls instructions for products in bfloat16, on x86 and on Arm.
BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
#: What a container may use of the CPUs, in microseconds of every period ("max" is all): cgroup v2's interface file.
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores(cpu_max: Path = CPU_MAX) -> int:
    """CPU cores that this process may use, at least one: those it is bound to, within its container's limit."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if cpu_max.exists():
        quota, period = cpu_max.read_text().split()
        if quota != "max":
            count = min(count, math.ceil(int(quota) / int(period)))
    return count


def network_dtype(setting: str, device: str) -> torch.dtype:
    """The precision that the setting `dtype` means on a device.

    `auto` is bfloat16 where the device computes in it, and float32 elsewhere: a CPU without such instructions emulates
    them, and takes some fifty times as long for a product as in float32.
    """
    if setting != "auto":
        named: torch.dtype = getattr(torch, setting)
        return named
    if device.startswith("cuda"):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name) for name in BF16)
    return torch.bfloat16 if native else torch.float32


def take_machine(threads: int | None = None) -> None:
    """Let torch use so many threads, and keep the memory of tensors.

    Args:
        threads: None is one for each of `cores()`, whatever `OMP_NUM_THREADS` says (Ray sets it to 1).

    By default glibc maps every tensor of more than some 100 KiB anew and the kernel zeroes it page by page, which takes
    a third of a small network's forward on the CPU. The price is that the process stays as large as it ever was.
    """
    torch.set_num_threads(threads or cores())
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
