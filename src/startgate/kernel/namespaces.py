"""Joining another namespace: setns(2)."""

from __future__ import annotations

import ctypes
import os

from startgate.kernel import libc

_CLONE_NEWCGROUP = 0x0200_0000

_setns = libc.function("setns", ctypes.c_int, ctypes.c_int, ctypes.c_int)


def join_cgroup_namespace(path: str) -> None:
    """Move this thread, and threads that it starts, to the cgroup namespace at `path`.

    /proc/PID/cgroup shows paths as seen from the reader's. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(fd, _CLONE_NEWCGROUP, about=path)
    finally:
        os.close(fd)
