"""How each `exec` comes out, as the BPF programs on forks, execs and exits tell it: see exits.Joins."""

from __future__ import annotations

import threading

from startgate.exits import ExecOutcome
from startgate.kernel.bpf import Object
from startgate.kernel.inherited import InheritedObject
from startgate.records import layout

MAPS = ("joining", "members", "outcomes")


class BpfJoins:
    """Follows runtimes by the maps `joining` and `members`; reads the ring buffer `outcomes`."""

    def __init__(self, loaded: Object | InheritedObject) -> None:
        self._joining, self._members = loaded.map("joining"), loaded.map("members")
        self._lock = threading.Lock()  # they have buffers
        self._ring = loaded.ring("outcomes", layout.OUTCOME_SIZE)

    def follow(self, pid: int, start_ns: int, mnt: int, init: int) -> None:
        """See Joins."""
        with self._lock:
            self._joining.set(pid, layout.join(start_ns, mnt, init))
            try:
                self._members.set(pid, layout.member(start_ns, pid))
            except OSError:  # it is full
                self._joining.delete(pid)
                raise

    def forget(self, pid: int) -> None:
        """See Joins."""
        with self._lock:
            self._members.delete(pid)
            self._joining.delete(pid)

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""
        return self._ring.fileno()

    def read(self) -> list[ExecOutcome]:
        """Return those since the last call, oldest first."""
        return [layout.decode_outcome(record) for record in self._ring.read()]

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()
