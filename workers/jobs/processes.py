"""Child processes that never outlive their parent."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _ask_for_sigterm() -> None:
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


#: For `subprocess.Popen(preexec_fn=...)`: the kernel ends the child when the thread that started it ends. Linux only.
die_with_parent: Callable[[], None] | None = _ask_for_sigterm if sys.platform == "linux" else None
