"""fanotify permission events: fanotify(7), fanotify_init(2), fanotify_mark(2).

A `Group` owns its file descriptor. What `read` returns is owed an answer: the kernel
holds the task that raised the event until `answer` is called with the event's fd.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
import weakref
from typing import NamedTuple, Protocol

from startgate.kernel import libc

# <linux/fanotify.h>
FAN_ACCESS_PERM = 0x0002_0000
FAN_OPEN_EXEC_PERM = 0x0004_0000
FAN_Q_OVERFLOW = 0x4000
FAN_EVENT_ON_CHILD = 0x0800_0000
FAN_ALLOW = 1
FAN_DENY = 2
FAN_NOFD = -1

_FAN_CLOEXEC = 0x1
_FAN_NONBLOCK = 0x2
_FAN_CLASS_CONTENT = 0x4
_FAN_UNLIMITED_QUEUE = 0x10
_FAN_UNLIMITED_MARKS = 0x20
_FAN_REPORT_TID = 0x100
FAN_MARK_ADD = 0x1
FAN_MARK_REMOVE = 0x2
FAN_MARK_IGNORED_MASK = 0x20
FAN_MARK_IGNORED_SURV_MODIFY = 0x40
_FAN_MARK_FLUSH = 0x80

# struct fanotify_event_metadata: event_len, vers, reserved, metadata_len, mask, fd, pid
_METADATA = struct.Struct("=IBBHQii")
EVENT_SIZE = _METADATA.size
_METADATA_VERSION = 3
# struct fanotify_response: fd, response
_RESPONSE = struct.Struct("=iI")

_fanotify_init = libc.function("fanotify_init", ctypes.c_int, ctypes.c_uint, ctypes.c_uint)
_fanotify_mark = libc.function(
    "fanotify_mark",
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
)


class Marker(Protocol):
    """A fanotify group, or who has one."""

    def mark(self, mask: int, path: str) -> None:
        """Mark the inode that `path` names. Raises OSError."""


class PermissionEvent(NamedTuple):
    """One fanotify event.

    `fd` is the file that the event is about, or FAN_NOFD (an overflow). `pid` is the
    task's thread id in a group made with ``report_tid``, else its process id; 0 when
    the task lives in no pid namespace of ours.
    """

    mask: int
    fd: int
    pid: int

    @property
    def overflow(self) -> bool:
        """Events were dropped before this one: the kernel allowed them all."""
        return bool(self.mask & FAN_Q_OVERFLOW)


def decode(record: bytes) -> PermissionEvent:
    """Decode one ``struct fanotify_event_metadata``.

    Raises ValueError on a short record or another version of the format.
    """
    if len(record) < EVENT_SIZE:
        raise ValueError(f"fanotify record of {len(record)} bytes, expected {EVENT_SIZE}")
    _, version, _, _, mask, fd, pid = _METADATA.unpack_from(record)
    if version != _METADATA_VERSION:
        raise ValueError(f"fanotify metadata version {version}, expected {_METADATA_VERSION}")
    return PermissionEvent(mask, fd, pid)


_open_groups: weakref.WeakSet[Group] = weakref.WeakSet()


def _close_in_child() -> None:
    """A forked child must not keep a group alive: when we die, the kernel is to let all go."""
    for group in list(_open_groups):
        group.abandon()


os.register_at_fork(after_in_child=_close_in_child)


def _open(report_tid: bool) -> int:
    flags = (
        _FAN_CLOEXEC
        | _FAN_NONBLOCK
        | _FAN_CLASS_CONTENT
        | _FAN_UNLIMITED_QUEUE
        | _FAN_UNLIMITED_MARKS
        | (_FAN_REPORT_TID if report_tid else 0)
    )
    # O_NONBLOCK: a read must not wait for the holder of a lease on the file (fcntl(2)).
    return _fanotify_init(flags, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | getattr(os, "O_LARGEFILE", 0))


class Group:
    """A fanotify group for permission events. Closing it allows all that is pending."""

    def __init__(self, *, report_tid: bool = False) -> None:
        """Open a new group. Raises OSError."""
        self._closing = threading.Lock()
        self._fd = _open(report_tid)
        _open_groups.add(self)

    def fileno(self) -> int:
        """Return the group's fd: it polls readable while an event waits."""
        return self._fd

    def read(self) -> PermissionEvent | None:
        """Return the next event, None when none waits.

        One event per read(2): BPF counts on it, and one fd is installed at a time.
        Raises OSError: EMFILE when no fd is left (the kernel denied the access then).
        """
        try:
            return decode(os.read(self._fd, EVENT_SIZE))
        except BlockingIOError:
            return None

    def answer(self, event_fd: int, response: int) -> None:
        """Let the held task go (FAN_ALLOW) or fail its access with EPERM (FAN_DENY).

        The kernel knows the event by that number alone, whoever read it. Raises OSError:
        ENOENT when no pending event has that fd.
        """
        with self._closing:  # a closed fd's number may be another file's by now
            os.write(self._fd, _RESPONSE.pack(event_fd, response))

    def mark(self, mask: int, path: str) -> None:
        """Mark the inode that `path` names. Raises OSError (ENOENT, ENOSPC, ...)."""
        self._mark(FAN_MARK_ADD, mask, path)

    def unmark(self, mask: int, path: str) -> None:
        """Undo `mark`. Raises OSError: ENOENT when the inode has no such mark."""
        self._mark(FAN_MARK_REMOVE, mask, path)

    def _mark(self, action: int, mask: int, path: str) -> None:
        _fanotify_mark(self._fd, action, mask, -1, os.fsencode(path), about=path)

    def close(self) -> None:
        """Close the group; the kernel allows every event that is still pending."""
        with self._closing:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                self._let_all_go(fd)
                os.close(fd)

    def abandon(self) -> None:
        """Close this process's copy of the fd: the group lives on with whoever else has it."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _let_all_go(self, fd: int) -> None:
        """A process forked from ours keeps the group alive: leave it nothing to hold."""
        try:
            _fanotify_mark(fd, _FAN_MARK_FLUSH, 0, -1, None)
            while True:
                event = decode(os.read(fd, EVENT_SIZE))
                if event.fd != FAN_NOFD:
                    os.write(fd, _RESPONSE.pack(event.fd, FAN_ALLOW))
                    os.close(event.fd)
        except OSError:  # EAGAIN: none is left
            return
