"""The turnstile: a thread in C that lets go at once who needs no hold (native/turnstile.c)."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from startgate.kernel import fanotify, libc
from startgate.kernel.fanotify import FAN_NOFD, Event, Group

_ROOM = 1 << 20  # bytes of the pipe, a page for each packet
_PACKET_SIZE = 4096
_ERRNO_SIZE = 4


class _Setup(ctypes.Structure):
    """``struct turnstile_setup``."""

    _fields_ = (
        ("group", ctypes.c_int32),
        ("table", ctypes.c_int32),
        ("out", ctypes.c_int32),
        ("stop", ctypes.c_int32),
        ("ping", ctypes.c_int32),
        ("alert", ctypes.c_int32),
        ("scarce", ctypes.c_int32),
        ("unused", ctypes.c_int32),
        ("counters", ctypes.c_void_p),
        ("words", ctypes.c_char_p),
        ("settling_words", ctypes.c_char_p),
    )


def library_path() -> Path:
    """Return where the library for this machine is, if it was built."""
    return Path(__file__).parent.parent / "_native" / f"turnstile.{os.uname().machine}.so"


def library() -> ctypes.CDLL:
    """Load it. Raises OSError where it was not built for this machine, or for another C library."""
    so = ctypes.CDLL(str(library_path()), use_errno=True)
    so.turnstile_start.restype = ctypes.c_void_p
    so.turnstile_stop.argtypes = (ctypes.c_void_p,)
    return so


class Words(NamedTuple):
    """The words for which an execve is passed on."""

    always: Iterable[bytes]
    settling: Iterable[bytes]
    """While some container is not settled."""


class Watched(NamedTuple):
    """How a supervisor sees that the thread lives, and the thread whether all containers are settled."""

    counters: memoryview
    """Five words, see ``struct counters``."""
    ping: int
    """An eventfd of which each write is worth one turn."""
    alert: int
    """An eventfd that wakes the supervisor."""


class Turnstile:
    """Reads a group's events, and passes on those that concern us; stands in for the group to its readers.

    Owns the thread and the pipe that they come through.
    """

    def __init__(
        self,
        group: Group,
        table: int,
        words: Words,
        watched: Watched,
        *,
        room: int = _ROOM,
    ) -> None:
        """Start the thread.

        `table` is the fd of the map of exec records by thread id; an execve whose arguments have
        none of `words` is let go. Raises OSError where the library can't be used, or the thread
        not be started.
        """
        self._group = group
        self._library = library()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._pipe, self._out = os.pipe2(os.O_DIRECT | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            os.close(self._stop)
            raise
        _size(self._pipe, room)
        setup = _Setup(
            group=group.fileno(),
            table=table,
            out=self._out,
            stop=self._stop,
            ping=watched.ping,
            alert=watched.alert,
            scarce=fanotify.scarce_from(),
            counters=ctypes.addressof(ctypes.c_uint64.from_buffer(watched.counters)),
            words=_joined(words.always),
            settling_words=_joined(words.settling),
        )
        self._kept = setup, watched  # the thread uses them
        self._thread: int | None = self._library.turnstile_start(ctypes.byref(setup))
        if self._thread is None:
            self._close_fds()
            raise libc.error()

    def fileno(self) -> int:
        """Return an fd that polls readable while an event waits."""
        return self._pipe

    def read(self) -> Event | None:
        """Return the next event that was passed on, None when none waits.

        Raises OSError as `Group.read` does.
        """
        try:
            packet = os.read(self._pipe, _PACKET_SIZE)
        except BlockingIOError:
            return None
        if len(packet) == _ERRNO_SIZE:
            number = int.from_bytes(packet, "little")
            raise OSError(number, os.strerror(number))
        return fanotify.decode(packet)._replace(record=packet[fanotify.EVENT_SIZE :])

    def close(self) -> None:
        """End the thread. Safe to call twice.

        What it passed on and nobody took is let go; of a group that others keep, too, it is left to them.
        """
        if self._thread is None:
            return
        os.eventfd_write(self._stop, 1)
        left = self._library.turnstile_stop(self._thread)
        self._thread = None
        if not self._group.shared:
            self._let_go(left)
            self._let_all_go()
        self._close_fds()

    def _let_all_go(self) -> None:
        while True:
            try:
                event = self.read()
            except OSError:  # what it tells of is over
                continue
            if event is None:
                return
            self._let_go(event.fd)

    def _let_go(self, event_fd: int) -> None:
        if event_fd == FAN_NOFD:
            return
        try:
            self._group.answer(event_fd, fanotify.FAN_ALLOW)
        except OSError as error:  # ENOENT: the task was killed
            if error.errno != errno.ENOENT:
                raise
        os.close(event_fd)

    def _close_fds(self) -> None:
        for fd in (self._pipe, self._out, self._stop):
            os.close(fd)
        self._pipe = -1


def _joined(words: Iterable[bytes]) -> bytes:
    return b"".join(word + b"\0" for word in words) + b"\0"


def _size(pipe: int, room: int) -> None:
    """Without the right to it there is room for 16 packets; the others wait in the group."""
    with suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, room)
