"""Looking into a pipe without taking anything out of it: tee(2)."""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat

from startgate.kernel import libc

_SPLICE_F_NONBLOCK = 2
_SIZE = 1 << 20
"""Bytes of the largest pipe (/proc/sys/fs/pipe-max-size, unless somebody raised it)."""

_tee = libc.function("tee", ctypes.c_ssize_t, ctypes.c_int, ctypes.c_int, ctypes.c_size_t, ctypes.c_uint)


def is_anonymous(fd: int) -> bool:
    """Is it a pipe without a name? One with a name is opened by its writer once it has a reader: us."""
    found = os.fstat(fd)
    return stat.S_ISFIFO(found.st_mode) and found.st_dev == _pipefs()


def peek(fd: int) -> bytes:
    """Return what is in the pipe now. Works with O_PATH; raises OSError."""
    pipe = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    out, into = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _SIZE)
        copied = _tee(pipe, into, _SIZE, _SPLICE_F_NONBLOCK)
        return os.read(out, copied) if copied else b""
    except BlockingIOError:  # nothing is in it yet
        return b""
    finally:
        for end in (pipe, out, into):
            os.close(end)


def _pipefs() -> int:
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        return os.fstat(ends[0]).st_dev
    finally:
        for end in ends:
            os.close(end)
