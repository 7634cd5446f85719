"""The arguments of an execve, in the memory of the task that is held in it: proc_pid_mem(5)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

_MAX_ARGUMENTS = 1 << 16
_MAX_ARGUMENT_BYTES = 1 << 17  # MAX_ARG_STRLEN
_MAX_BYTES = 6 << 20
_PAGE = 4096

# Position of argv among the arguments of execve and execveat, by their numbers.
_EXECVE = {
    "x86_64": {59: 1, 322: 2},
    "aarch64": {221: 1, 281: 2},
}


def execve_argv_index(fields: list[bytes]) -> int | None:
    """Where argv is among the arguments of /proc/TID/syscall's call; None: it is no execve.

    The file reads ``running`` until the thread sleeps.
    """
    if len(fields) < 7:
        return None
    try:
        return _EXECVE.get(os.uname().machine, {}).get(int(fields[0]))
    except ValueError:
        return None


def read_strings(mem: int, argv: int) -> list[bytes]:
    """Return the NULL-terminated array of strings at the address `argv` of /proc/TID/mem.

    As much as an execve takes: 6 MiB in all (execve(2)). Raises OSError, OverflowError.
    """
    strings, left = [], _MAX_BYTES
    for address in _read_pointers(mem, argv):
        strings.append(_read_string(mem, address))
        left -= len(strings[-1]) + 9
        if left < 0:
            raise OSError("more arguments than an execve takes")
    return strings


def _read_pointers(mem: int, address: int) -> Iterator[int]:
    for _ in range(_MAX_ARGUMENTS // 64):
        chunk = _read_up_to(mem, address, 64 * 8)
        for (pointer,) in struct.iter_unpack("=Q", chunk[: len(chunk) // 8 * 8]):
            if not pointer:
                return
            yield pointer
        address += len(chunk) // 8 * 8


def _read_string(mem: int, address: int) -> bytes:
    text = bytearray()
    while len(text) < _MAX_ARGUMENT_BYTES:
        chunk = _read_up_to(mem, address, _PAGE - address % _PAGE)
        end = chunk.find(b"\0")
        if end >= 0:
            return bytes(text + chunk[:end])
        text += chunk
        address += len(chunk)
    return bytes(text)


def _read_up_to(mem: int, address: int, size: int) -> bytes:
    """Read what is mapped of `size` bytes: at least one, or OSError."""
    chunk = os.pread(mem, size, address)
    if not chunk:
        raise OSError("not mapped")
    return chunk
