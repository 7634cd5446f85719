"""How many runtimes were executed, and of how many no gate was asked: counted by BPF."""

from __future__ import annotations

import struct
import threading
import time

from startgate.counter import Counter, Executions
from startgate.events import timestamp
from startgate.kernel.bpf import Object
from startgate.kernel.inherited import InheritedObject

MAPS = ("counts", "asked")


class BpfCounter:
    """What BPF counts at the end of each execve: see ExecCounter. Thread-safe."""

    _U64 = struct.Struct("=Q")
    _START, _EXEC, _START_UNSEEN, _EXEC_UNSEEN, _SINCE = range(5)  # enum exec_counts

    def __init__(self, loaded: Object | InheritedObject) -> None:
        """Raises KeyError where the object is an older one, which does not count."""
        self._counts, self._asked = loaded.map("counts"), loaded.map("asked")
        self._lock = threading.Lock()

    def asked(self, tid: int) -> None:
        """See ExecCounter."""
        with self._lock:
            self._asked.set(tid, self._U64.pack(time.monotonic_ns()))

    def read(self) -> Counter:
        """See ExecCounter."""
        with self._lock:
            if not (since := self._get(self._SINCE)):
                since = time.time_ns()
                self._counts.set(self._SINCE, self._U64.pack(since))
            start, executed, unseen, unseen_exec = map(self._get, range(self._SINCE))
        return Counter(timestamp(since), Executions(start, executed), Executions(unseen, unseen_exec))

    def _get(self, place: int) -> int:
        value = self._counts.get(place)
        return 0 if value is None else int(self._U64.unpack(value.raw)[0])
