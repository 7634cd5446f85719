"""Namespaces as such: joining one (setns(2)), asking whose one is (ioctl_ns(2))."""

from __future__ import annotations

import ctypes
import fcntl
import os
import sys

from startgate.kernel import libc

_CLONE_NEWCGROUP = 0x0200_0000
_NS_GET_OWNER_UID = 0xB704  # _IO(0xb7, 4), <linux/nsfs.h>

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


def owner_of_user_namespace(path: str) -> int:
    """Return the uid of who made the user namespace at `path`; 0 for the initial one. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        owner = bytearray(4)
        fcntl.ioctl(fd, _NS_GET_OWNER_UID, owner)
        return int.from_bytes(owner, sys.byteorder)
    finally:
        os.close(fd)
