"""inotify(7): names that appear in a directory, or are written there."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator

from startgate.kernel import libc

_IN_MODIFY = 0x2
_IN_CLOSE_WRITE = 0x8
_IN_MOVED_TO = 0x80
_IN_CREATE = 0x100
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x0100_0000
_EVENT = struct.Struct("=iIII")  # wd, mask, cookie, len

_inotify_init1 = libc.function("inotify_init1", ctypes.c_int, ctypes.c_int)
_inotify_add_watch = libc.function(
    "inotify_add_watch", ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32
)


class Inotify:
    """Tells of files that are created in, or moved into, watched directories."""

    def __init__(self) -> None:
        self._fd = _inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        self._directories: dict[int, str] = {}

    def fileno(self) -> int:
        """Return the fd: it polls readable when a name appeared."""
        return self._fd

    def __len__(self) -> int:
        """How many directories are watched."""
        return len(self._directories)

    def watch(self, directory: str, *, written: bool = False, changed: bool = False) -> None:
        """Watch a directory, also for files that were `written`, or are `changed` in any way.

        Raises OSError: ENOENT, ENOTDIR, ENOSPC (too many watches).
        """
        mask = _IN_CREATE | _IN_MOVED_TO | _IN_ONLYDIR
        mask |= (_IN_CLOSE_WRITE if written else 0) | (_IN_MODIFY if changed else 0)
        wd = _inotify_add_watch(self._fd, os.fsencode(directory), mask, about=directory)
        self._directories[wd] = directory

    def read(self) -> Iterator[str]:
        """Yield the paths that appeared since the last call; ``/``: some were too many to be told."""
        try:
            data = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            wd, mask, _, size = _EVENT.unpack_from(data, at)
            name = data[at + _EVENT.size : at + _EVENT.size + size].rstrip(b"\0")
            at += _EVENT.size + size
            if mask & _IN_Q_OVERFLOW:
                yield "/"
            elif mask & _IN_IGNORED:  # the directory is gone
                self._directories.pop(wd, None)
            elif wd in self._directories and name:
                yield os.path.join(self._directories[wd], os.fsdecode(name))

    def close(self) -> None:
        """Close the fd; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
