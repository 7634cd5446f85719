"""pidfds: a process that can't be confused with another that got its number later."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Callable

from startgate.kernel import libc

# The same on all machines (Linux 5.3, 5.1). Called by number: an interpreter that was built with old headers,
# as python-build-standalone's is, has no os.pidfd_open.
_PIDFD_OPEN = 434
_PIDFD_SEND_SIGNAL = 424
# <linux/pidfd.h>: PIDFD_GET_INFO = _IOWR(0xFF, 11, struct pidfd_info), Linux 6.13;
# PIDFD_INFO_EXIT since 6.15. The first published size of the struct is 64 bytes.
_PIDFD_GET_INFO = 0xC040_FF0B
_PIDFD_INFO_EXIT = 1 << 3
_INFO = struct.Struct("=Q52xi")  # mask, ..., exit_code at offset 60


def open_process(pid: int) -> int:
    """Return a pidfd (the caller owns it). Raises ProcessLookupError if there is no such process."""
    return libc.syscall(_PIDFD_OPEN, ctypes.c_int(pid), ctypes.c_uint(0))


def open_exactly(pid: int, is_it: Callable[[], bool]) -> int:
    """Return a pidfd (the caller owns it) of the process that `is_it` says is still the one that is meant.

    Raises ProcessLookupError if that has ended.
    """
    fd = open_process(pid)
    # Asked after: had the pid been another's when it was opened, it could not be this one's now.
    if not is_it():
        os.close(fd)
        raise ProcessLookupError(errno.ESRCH, f"process {pid} has ended")
    return fd


def kill(pid: int, is_it: Callable[[], bool]) -> None:
    """Kill a process, if `is_it` says that it is still the one that is meant.

    Raises OSError: ESRCH where it is gone, EPERM without CAP_KILL where it has another uid.
    """
    fd = open_process(pid)
    try:
        if not is_it():
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        libc.syscall(
            _PIDFD_SEND_SIGNAL,
            ctypes.c_int(fd),
            ctypes.c_int(signal.SIGKILL),
            ctypes.c_void_p(),
            ctypes.c_uint(0),
        )
    finally:
        os.close(fd)


def wait_status(fd: int) -> int | None:
    """Return the wait status of a process that exited *and was reaped*, else None.

    A zombie has none yet. None too on a kernel without PIDFD_INFO_EXIT (before 6.15), or if it says
    anything else: that the process has ended is known all the same.
    """
    info = bytearray(_INFO.size)
    _INFO.pack_into(info, 0, _PIDFD_INFO_EXIT, 0)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, info)
    except OSError:  # ENOTTY, EINVAL, ESRCH
        return None
    mask, exit_code = _INFO.unpack(info)
    return exit_code if mask & _PIDFD_INFO_EXIT else None


def decode_wait_status(status: int) -> tuple[int | None, int | None]:
    """Split a wait status (wait(2)) into (exit code, signal): exactly one is not None."""
    number = status & 0x7F
    return (None, number) if number else ((status >> 8) & 0xFF, None)
