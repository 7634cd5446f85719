"""BPF programs that another process loaded and attached, used through their fds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from startgate.kernel.bpf import LINK
from startgate.kernel.libbpf import Map, Program, Ring, library


class InheritedObject:
    """As `bpf.Object`, over the fds that its `fds` returned. Closing it detaches nothing."""

    def __init__(self, fds: Mapping[str, int]) -> None:
        """Takes the fds over."""
        self._library = library()
        self._fds = dict(fds)
        for name in [name for name in fds if name.startswith(LINK)]:
            os.close(self._fds.pop(name))  # the other process keeps them

    def __getitem__(self, program: str) -> Program:
        return Program(self._library, self._fds[program])

    def map(self, name: str) -> Map:
        """Return the map `name`; each call returns one with buffers of its own."""
        return Map(self._library, self._fds[name])

    def ring(self, name: str, record_size: int) -> Ring:
        """Return a reader of the ring buffer `name`, which the caller closes."""
        return Ring(self._library, self._fds[name], record_size)

    def close(self) -> None:
        """Close our copies of the fds. Safe to call twice."""
        while self._fds:
            os.close(self._fds.popitem()[1])
