"""A process that is to end with its parent: prctl(2)."""

from __future__ import annotations

import ctypes
import os
import signal

from startgate.kernel import libc

_PR_SET_PDEATHSIG = 1
_prctl = libc.function("prctl", ctypes.c_int, ctypes.c_int, ctypes.c_ulong)


def end_with(parent: int) -> None:
    """Be killed when the parent process ends; at once, if it has ended already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)
