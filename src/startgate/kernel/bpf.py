"""BPF objects: opened, loaded, attached."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from startgate.errors import KernelUnsupported
from startgate.kernel import tracepoint
from startgate.kernel.libbpf import Library, Map, Program, Ring, library

_LOG_LINES = 40
LINK = "link."
"""How `Object.fds` names the fds of links."""


class _Loadable(NamedTuple):
    """A program of an object: ``struct bpf_program *``, and its section's name."""

    pointer: ctypes.c_void_p
    section: str

    def attach(self, library: Library) -> int:
        """Attach where the section's name says; return the ``struct bpf_link *``.

        Raises OSError: ENOENT, EOPNOTSUPP, EPERM, ... as the kernel says.
        """
        kind, _, where = self.section.partition("/")
        if kind == "tracepoint":
            fd = tracepoint.open_event(where)
            try:
                return library.pointer("bpf_program__attach_perf_event", self.pointer, fd)
            except OSError:
                os.close(fd)
                raise
        return library.pointer("bpf_program__attach", self.pointer)


class Object:
    """A BPF object file, loaded. It owns its maps, programs and links."""

    def __init__(self, path: Path, programs: Collection[str]) -> None:
        """Load `path` with only the programs named.

        Raises KernelUnsupported with the end of the verifier's log, or the kernel's reason.
        """
        self._library = library()
        self._links: dict[str, int] = {}
        self._library.log.clear()
        try:
            self._pointer = ctypes.c_void_p(
                self._library.pointer("bpf_object__open_file", os.fsencode(path), None)
            )
        except OSError as error:
            raise KernelUnsupported(f"cannot open the BPF object {path}: {error.strerror}") from error
        self._programs = self._select(programs)
        try:
            self._library.number("bpf_object__load", self._pointer)
        except OSError as error:
            log = _tail("".join(self._library.log))
            self.close()
            raise KernelUnsupported(
                f"the kernel refused the BPF programs ({error.strerror})", details=log
            ) from error

    def _select(self, wanted: Collection[str]) -> dict[str, _Loadable]:
        selected: dict[str, _Loadable] = {}
        so = self._library.so
        so.bpf_program__name.restype = so.bpf_program__section_name.restype = ctypes.c_char_p
        so.bpf_object__next_program.restype = ctypes.c_void_p
        at = so.bpf_object__next_program(self._pointer, None)
        while at:
            name = so.bpf_program__name(ctypes.c_void_p(at)).decode()
            if name in wanted:
                section = so.bpf_program__section_name(ctypes.c_void_p(at)).decode()
                selected[name] = _Loadable(ctypes.c_void_p(at), section)
            else:
                self._library.number("bpf_program__set_autoload", ctypes.c_void_p(at), False)
            at = so.bpf_object__next_program(self._pointer, ctypes.c_void_p(at))
        return selected

    def __getitem__(self, program: str) -> Program:
        return Program(
            self._library, self._library.number("bpf_program__fd", self._programs[program].pointer)
        )

    def attach(self, *programs: str) -> None:
        """Attach the programs named. Raises KernelUnsupported, which names the program."""
        for name in programs:
            try:
                self._links[name] = self._programs[name].attach(self._library)
            except OSError as error:
                raise KernelUnsupported(f"cannot attach the BPF program {name}: {error.strerror}") from error

    def map(self, name: str) -> Map:
        """Return the map `name`; each call returns one with buffers of its own."""
        return Map(self._library, self._map_fd(name))

    def ring(self, name: str, record_size: int) -> Ring:
        """Return a reader of the ring buffer `name`, which the caller closes."""
        return Ring(self._library, self._map_fd(name), record_size)

    def _map_fd(self, name: str) -> int:
        pointer = self._library.pointer("bpf_object__find_map_by_name", self._pointer, name.encode())
        return self._library.number("bpf_map__fd", ctypes.c_void_p(pointer))

    def fds(self, maps: Collection[str], programs: Collection[str]) -> dict[str, int]:
        """Return what keeps all of it at work without this process: the maps and programs
        named, under their names, and all links."""
        found = {name: self._map_fd(name) for name in maps} | {name: self[name].fd for name in programs}
        for name, link in self._links.items():  # before Linux 5.15 it is the perf event's
            found[LINK + name] = self._library.number("bpf_link__fd", ctypes.c_void_p(link))
        return found

    def close(self) -> None:
        """Detach and unload. Safe to call twice."""
        for link in self._links.values():
            self._library.so.bpf_link__destroy(ctypes.c_void_p(link))
        self._links.clear()
        if self._pointer:
            self._library.so.bpf_object__close(self._pointer)
            self._pointer = ctypes.c_void_p()


def _tail(log: str) -> str:
    """The verifier says why at the end; thousands of lines of states may come before."""
    return "\n".join(re.sub(r"\n+", "\n", log).strip().splitlines()[-_LOG_LINES:])
