"""One `exec` may raise several events: which say nothing new?"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from startgate.errors import NotReadable
from startgate.events import Process
from startgate.hold import Hold
from startgate.kernel.process import Proc, ProcessId
from startgate.records import ExecRecord


@dataclass(frozen=True, slots=True)
class _Look:
    runtime: ProcessId
    container: str
    process: Process | None
    hold: Hold


class Repeats:
    """Tells the second event of one command: crun executes itself again, from a clone, and
    wrappers (nvidia-container-runtime) execute the runtime, in their place or as a child.

    It is a repeat if the same is to be executed in the same container: what the command line, or the
    file that it names, says by now. A command that was denied is no such: its process may try
    again, and is judged again.
    """

    _SIZE = 1024

    def __init__(self, proc: Proc) -> None:
        self._proc = proc
        self._lock = threading.Lock()
        self._last: OrderedDict[int, _Look] = OrderedDict()

    def seen(self, record: ExecRecord, container: str, process: Process | None, hold: Hold) -> bool:
        """Was the same command let go before, of this runtime process or of its parent? On a worker."""
        try:
            runtime = record.process or self._proc.identify(record.tgid)
        except NotReadable:
            return False
        with self._lock:
            own, above = self._last.get(runtime.pid), self._last.get(record.ppid)
        parent = above and self._identify(record.ppid)
        for look, caller in ((own, runtime), (above, parent)):
            same = look and (look.runtime, look.container, look.process) == (caller, container, process)
            if look and same and not look.hold.denied:
                return True
        self._remember(_Look(runtime, container, process, hold))
        return False

    def _remember(self, look: _Look) -> None:
        with self._lock:
            self._last[look.runtime.pid] = look
            self._last.move_to_end(look.runtime.pid)
            if len(self._last) > self._SIZE:
                self._last.popitem(last=False)

    def _identify(self, pid: int) -> ProcessId | None:
        try:
            return self._proc.identify(pid)
        except NotReadable:
            return None
