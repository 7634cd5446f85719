"""The spool: lines on their way to the journal, in a bounded directory in memory.

The worker appends each line whole, with one write(2). It never waits: where there is no room lines are
dropped, and one `lost` line takes their place, as soon as there is room. So in a spool the numbers of
lines have no holes, whatever becomes of the worker, of the agent that takes lines out, or of the memory.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import stat
import struct
from contextlib import suppress
from typing import NamedTuple

import msgspec

from startgate.errors import UsageError
from startgate.kernel.node import boot_id
from startgate.lines import line
from startgate.listeners import lost

log = logging.getLogger(__name__)

SEGMENT = 1 << 20
BOUND = 64 << 20
_NUMBER = "number"
"""The file with the number of the last line that there was no room for: a daemon after us goes on from it."""
_U64 = struct.Struct("=Q")
_NAME = re.compile(r"([0-9a-f]{8})-(\d{8,})\.lines", re.ASCII)
_TAIL = 1 << 20  # longer than any line


class Segment(NamedTuple):
    """A file of the spool. `spool` names the directory's contents: other ones are numbered anew."""

    spool: str
    ordinal: int
    path: str


def segments(directory: str) -> list[Segment]:
    """Return the files of a spool, oldest first. Raises OSError."""
    found = (
        Segment(match[1], int(match[2]), os.path.join(directory, name))
        for name in os.listdir(directory)
        if (match := _NAME.fullmatch(name))
    )
    return sorted(found, key=lambda segment: segment.ordinal)


def prepare(directory: str) -> int:
    """Make the directory, and return the number of the last line that was given to it, in this boot.

    Raises UsageError where others than we could write to it; OSError.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    found = os.stat(directory)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise UsageError(f"the spool {directory} may be written by others: give it to root alone (0700)")
    return max(_last_line(directory)[1], _dropped(directory))


class Spool:
    """The writing end, of one process at a time. It goes on where another left off."""

    def __init__(self, directory: str, *, segment: int = SEGMENT, bound: int = BOUND) -> None:
        """Raises OSError."""
        self._directory = directory
        self._segment, self._bound = segment, bound
        self._full, self._failing, self._fd = False, False, -1
        self._total = _total(directory)
        self._number = _open(os.path.join(directory, _NUMBER), os.O_RDWR)
        try:
            os.posix_fallocate(self._number, 0, _U64.size)  # a full disk takes it later, too
            self._open()
        except BaseException:
            os.close(self._number)
            raise

    def add(self, data: bytes, number: int) -> bool:
        """Append a line, or drop it. Never waits; raises nothing.

        `number` is one more than that of the line before. A line that is there already is not added again.
        """
        if number <= self._last:
            return True  # the worker before us wrote it, and died before it could say so
        missing = number - 1 - self._last
        if missing and not self._put(_gap(missing, number - 1), number - 1):
            return self._drop(number)
        return self._put(data, number) or self._drop(number)

    def reopen(self) -> None:
        """Go on after an exception came from nowhere, as a signal's does. Raises OSError."""
        os.close(self._fd)
        self._open()

    def close(self) -> None:
        """Close it; safe to call twice."""
        for fd in (self._fd, self._number):
            if fd >= 0:
                os.close(fd)
        self._fd = self._number = -1

    def _open(self) -> None:
        found, self._last = _last_line(self._directory)
        if found:
            self._name, self._fd = found, _open(found.path, os.O_WRONLY | os.O_APPEND)
        else:
            self._fd = self._begin(Segment(secrets.token_hex(4), 1, ""))
        self._at = _untear(self._fd, self._name.path)

    def _put(self, data: bytes, number: int) -> bool:
        if self._full and not self._has_room():
            return False
        try:
            self._next_segment(len(data))
            self._write(data)
        except OSError as error:
            if not self._failing:
                log.error("the spool takes no line: %s", error)
            self._failing = True
            return False
        self._last, self._failing = number, False
        return True

    def _write(self, data: bytes) -> None:
        wrote = os.write(self._fd, data)
        if wrote < len(data):  # no memory is left: nobody has seen a part of a line, which has no end
            os.ftruncate(self._fd, self._at)
            raise OSError(f"{wrote} of {len(data)} bytes were written")
        self._at += wrote
        self._total += wrote
        self._full = self._total > self._bound

    def _next_segment(self, size: int) -> None:
        if self._at and self._at + size > self._segment:
            name = self._name._replace(ordinal=self._name.ordinal + 1)
            fd = self._begin(name)
            os.close(self._fd)
            self._fd, self._at = fd, 0

    def _begin(self, name: Segment) -> int:
        path = os.path.join(self._directory, f"{name.spool}-{name.ordinal:08d}.lines")
        fd = _open(path, os.O_WRONLY | os.O_APPEND)
        self._name = name._replace(path=path)
        self._total = _total(self._directory)  # whoever takes lines out removes whole segments
        return fd

    def _has_room(self) -> bool:
        self._total = _total(self._directory)
        self._full = self._total > self._bound - self._segment
        return not self._full

    def _drop(self, number: int) -> bool:
        with suppress(OSError):
            os.pwrite(self._number, _U64.pack(number) + boot_id().encode(), 0)
        return False


def _gap(missing: int, number: int) -> bytes:
    lines = "1 line was" if missing == 1 else f"{missing} lines were"
    event = lost(f"{lines} dropped here: there was no room on the way to the journal")
    return line(msgspec.structs.replace(event, lines=missing), number)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _total(directory: str) -> int:
    total = 0
    for segment in segments(directory):
        with suppress(FileNotFoundError):
            total += os.stat(segment.path).st_size
    return total


def _untear(fd: int, path: str) -> int:
    """Cut off the half line of a worker that died while it wrote; return the length of what is left."""
    end = os.fstat(fd).st_size
    tail, start = _read_tail(path, end)
    whole = start + tail.rfind(b"\n") + 1
    if whole < end:
        os.ftruncate(fd, whole)
    return whole


def _read_tail(path: str, end: int) -> tuple[bytes, int]:
    start = max(0, end - _TAIL)
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(end - start), start


class _Numbered(msgspec.Struct):
    sequence: int
    boot_id: str = ""


def _last_line(directory: str) -> tuple[Segment | None, int]:
    """Return the last segment, and the number of the last whole line, 0: of this boot there is none."""
    found = segments(directory)
    for segment in reversed(found):
        tail, _ = _read_tail(segment.path, os.stat(segment.path).st_size)
        for text in reversed(tail.split(b"\n")[:-1]):
            with suppress(msgspec.MsgspecError, UnicodeDecodeError):
                last = msgspec.json.decode(text, type=_Numbered)
                return found[-1], last.sequence if last.boot_id == boot_id() else 0
    return (found[-1] if found else None), 0


def _dropped(directory: str) -> int:
    try:
        with open(os.path.join(directory, _NUMBER), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return 0
    if len(data) <= _U64.size or data[_U64.size :] != boot_id().encode():
        return 0
    return int(_U64.unpack_from(data)[0])
