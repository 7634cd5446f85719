"""libbpf through ctypes, and what it does with fds: maps, ring buffers, programs that are loaded."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Any

from startgate.errors import KernelUnsupported
from startgate.kernel import libc

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _TestRunOpts(ctypes.Structure):
    """``struct bpf_test_run_opts`` of <bpf/bpf.h>."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("data_in", ctypes.c_void_p),
        ("data_out", ctypes.c_void_p),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_void_p),
        ("ctx_out", ctypes.c_void_p),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("repeat", ctypes.c_int),
        ("duration", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
    )


_BUNDLED = Path(__file__).parent.parent / "_native" / f"lib.{os.uname().machine}" / "libstartgate-bpf.so"
"""It is empty, but has the package's own libbpf loaded: hatch_build.py."""


def _load() -> ctypes.CDLL:
    """Load the package's libbpf; where it has none, or one for another C library, the machine's."""
    for name in (str(_BUNDLED), "libbpf.so.1"):
        try:
            return ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            failed = error
    raise KernelUnsupported(
        "libbpf.so.1 is not installed (Debian and Ubuntu: apt-get install libbpf1)"
    ) from failed


class Library:
    """libbpf.so.1, loaded at first use; keeps what it prints while an object loads."""

    def __init__(self) -> None:
        self.so = _load()
        self.log: list[str] = []
        self._callback = _PRINT(self._keep)
        self._format = ctypes.CDLL(None).vsnprintf
        self._format.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_void_p)
        self.so.libbpf_set_print(self._callback)

    def _keep(self, level: int, form: bytes, arguments: int) -> int:
        if level < 2:  # LIBBPF_WARN, LIBBPF_INFO
            text = ctypes.create_string_buffer(65536)
            self._format(text, len(text), form, arguments)
            self.log.append(text.value.decode(errors="replace"))
        return 0

    def pointer(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a pointer: NULL and errno on failure (libbpf 1.x)."""
        function = getattr(self.so, name)
        function.restype = ctypes.c_void_p
        result = function(*arguments)
        if not result:
            raise libc.error()
        return int(result)

    def number(self, name: str, *arguments: Any) -> int:
        """Call a function that returns a negative errno on failure."""
        result: int = getattr(self.so, name)(*arguments)
        if result < 0:
            raise OSError(-result, os.strerror(-result), name)
        return result


_loaded: Library | None = None


def library() -> Library:
    """Return the library. Raises KernelUnsupported where it is not installed."""
    global _loaded
    if _loaded is None:
        _loaded = Library()
    return _loaded


class Map:
    """A BPF map, with keys of 4 bytes but for `insert`. Not for use by two threads at once."""

    def __init__(self, library: Library, fd: int) -> None:
        self.fd = fd
        self._key = ctypes.c_uint32()
        self._value = ctypes.create_string_buffer(_value_size(library, fd))
        self._lookup = library.so.bpf_map_lookup_elem
        self._pop = library.so.bpf_map_lookup_and_delete_elem
        self._update = library.so.bpf_map_update_elem
        self._delete = library.so.bpf_map_delete_elem
        self._next = library.so.bpf_map_get_next_key
        self._update.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64)

    def get(self, key: int) -> ctypes.Array[ctypes.c_char] | None:
        """Return the value of `key`, None if there is none. The next call overwrites it."""
        self._key.value = key
        if self._lookup(self.fd, ctypes.byref(self._key), self._value):
            return None
        return self._value

    def pop(self) -> ctypes.Array[ctypes.c_char] | None:
        """Take the oldest element of a queue map, None if it is empty."""
        if self._pop(self.fd, None, self._value):
            return None
        return self._value

    def set(self, key: int, value: bytes) -> None:
        """Insert or replace. Raises OSError: E2BIG when the map is full."""
        self._key.value = key
        if self._update(self.fd, ctypes.byref(self._key), value, 0):
            raise libc.error()

    def insert(self, key: bytes, value: bytes) -> None:
        """Insert or replace, in a map with keys of another size. Raises OSError: E2BIG when it is full."""
        if self._update(self.fd, key, value, 0):
            raise libc.error()

    def delete(self, key: int) -> None:
        """Remove `key`; nothing happens if it is not there."""
        self._key.value = key
        self._delete(self.fd, ctypes.byref(self._key))

    def keys(self) -> list[int]:
        """Return the keys of a hash map: a snapshot, for tests and counters."""
        found, key, after = [], ctypes.c_uint32(), None
        while not self._next(self.fd, after, ctypes.byref(key)):
            found.append(key.value)
            after = ctypes.byref(ctypes.c_uint32(key.value))
        return found


def _value_size(library: Library, fd: int) -> int:
    info = (ctypes.c_uint32 * 4)()  # the beginning of struct bpf_map_info: type, id, key_size, value_size
    size = ctypes.c_uint32(ctypes.sizeof(info))
    library.number("bpf_obj_get_info_by_fd", fd, ctypes.byref(info), ctypes.byref(size))
    return info[3]


class Ring:
    """A BPF ring buffer with records of one size. For one thread at a time."""

    def __init__(self, library: Library, fd: int, record_size: int) -> None:
        self._library = library
        self._size = record_size
        self._records: list[bytes] = []
        self._callback = _SAMPLE(self._keep)
        self._pointer = ctypes.c_void_p(library.pointer("ring_buffer__new", fd, self._callback, None, None))

    def _keep(self, context: int, data: int, size: int) -> int:
        self._records.append(ctypes.string_at(data, min(size, self._size)))
        return 0

    def fileno(self) -> int:
        """Return an fd that polls readable when records wait."""
        return self._library.number("ring_buffer__epoll_fd", self._pointer)

    def read(self) -> list[bytes]:
        """Take all records that wait. Raises OSError."""
        self._library.number("ring_buffer__consume", self._pointer)
        records, self._records = self._records, []
        return records

    def close(self) -> None:
        """Unmap it; safe to call twice."""
        if self._pointer:
            self._library.so.ring_buffer__free(self._pointer)
            self._pointer = ctypes.c_void_p()


class Program:
    """A loaded BPF program; its fd is its owner's."""

    def __init__(self, library: Library, fd: int) -> None:
        self._library = library
        self.fd = fd

    def run(self, *arguments: int) -> int:
        """Run once, now, on this thread, with u64 arguments (BPF_PROG_TEST_RUN).

        Returns the program's return value (u32). Raises OSError.
        """
        context = struct.pack(f"={len(arguments)}Q", *arguments)
        options = _TestRunOpts(
            sz=ctypes.sizeof(_TestRunOpts),
            ctx_in=ctypes.cast(ctypes.c_char_p(context), ctypes.c_void_p),
            ctx_size_in=len(context),
        )
        self._library.number("bpf_prog_test_run_opts", self.fd, ctypes.byref(options))
        return int(options.retval)
