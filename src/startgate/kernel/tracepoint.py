"""Perf events on tracepoints, for BPF programs to be attached to.

By hand, because libbpf wants tracefs at a known path, and many hosts and containers have
none. A detached tracefs mount, seen by no one else, serves.
"""

from __future__ import annotations

import ctypes
import os
import struct

from startgate.kernel import libc

_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_ATTR_SIZE = 64  # PERF_ATTR_SIZE_VER0: all that a tracepoint needs
_NR_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
# The same on every architecture: they were added after the numbers were unified.
_NR_FSOPEN, _NR_FSCONFIG, _NR_FSMOUNT = 430, 431, 432
_FSCONFIG_CMD_CREATE = 6


def open_event(name: str) -> int:
    """Return a perf event on the tracepoint `category/event`: one serves all CPUs for BPF."""
    number = int(_read_tracefs(f"events/{name}/id"))
    # struct perf_event_attr: type, size, config, sample_period, sample_type, read_format, flags
    attr = struct.pack("=IIQQQQQ", _PERF_TYPE_TRACEPOINT, _PERF_ATTR_SIZE, number, 1, 0, 0, 0)
    attr = attr.ljust(_PERF_ATTR_SIZE, b"\0")
    machine = os.uname().machine
    return libc.syscall(
        _NR_PERF_EVENT_OPEN[machine],
        ctypes.c_char_p(attr),
        ctypes.c_long(-1),
        ctypes.c_long(0),
        ctypes.c_long(-1),
        ctypes.c_long(_PERF_FLAG_FD_CLOEXEC),
        about=name,
    )


def _read_tracefs(path: str) -> bytes:
    root = _mount_tracefs()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
        try:
            return os.read(fd, 4096)
        finally:
            os.close(fd)
    finally:
        os.close(root)


def _mount_tracefs() -> int:
    """Return an O_PATH fd of a tracefs that is mounted nowhere (fsmount(2), Linux 5.2)."""
    context = libc.syscall(_NR_FSOPEN, ctypes.c_char_p(b"tracefs"), ctypes.c_long(1), about="tracefs")
    try:
        nothing = ctypes.c_void_p()
        libc.syscall(
            _NR_FSCONFIG,
            ctypes.c_long(context),
            ctypes.c_long(_FSCONFIG_CMD_CREATE),
            nothing,
            nothing,
            ctypes.c_long(0),
        )
        return libc.syscall(
            _NR_FSMOUNT, ctypes.c_long(context), ctypes.c_long(1), ctypes.c_long(0), about="tracefs"
        )
    finally:
        os.close(context)
