"""One runtime command may raise several events: which are the second, the third?"""

from __future__ import annotations

from collections import OrderedDict

from startgate.errors import NotReadable
from startgate.hold import Hold
from startgate.kernel.process import Proc, ProcessId
from startgate.records import ExecRecord


class Repeats:
    """Tells the second event of one command: crun executes itself again, from a clone, and
    wrappers (nvidia-container-runtime) execute the runtime, in their place or as a child.

    A command that was denied is no such: its process may try again, and is judged again.
    """

    _SIZE = 1024

    def __init__(self, proc: Proc) -> None:
        self._proc = proc
        self._last: OrderedDict[int, tuple[ProcessId, int, Hold]] = OrderedDict()

    def seen(self, record: ExecRecord, hold: Hold) -> bool:
        """Was this very process, or its parent, let go with the same arguments before?"""
        try:
            process = self._proc.identify(record.tgid)
        except NotReadable:
            return False
        arguments = _hash(record.arguments)
        if self._was(process, arguments) or self._was(self._parent(record), arguments):
            return True
        self.remember(process, record.arguments, hold)
        return False

    def remember(self, process: ProcessId, arguments: list[bytes], hold: Hold) -> None:
        """The process came with these arguments, and `hold` tells what was answered."""
        self._last[process.pid] = (process, _hash(arguments), hold)
        self._last.move_to_end(process.pid)
        if len(self._last) > self._SIZE:
            self._last.popitem(last=False)

    def _was(self, process: ProcessId | None, arguments: int) -> bool:
        if process is None or process.pid not in self._last:
            return False
        known, same, before = self._last[process.pid]
        return known == process and same == arguments and not before.denied

    def _parent(self, record: ExecRecord) -> ProcessId | None:
        if record.ppid not in self._last:
            return None
        try:
            return self._proc.identify(record.ppid)
        except NotReadable:
            return None


def _hash(arguments: list[bytes]) -> int:
    """They may be megabytes; argv[0] is the wrapper's."""
    return hash(tuple(arguments[1:]))
