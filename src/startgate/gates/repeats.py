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
        self._last: OrderedDict[ProcessId, tuple[int, Hold]] = OrderedDict()

    def seen(self, record: ExecRecord, hold: Hold) -> bool:
        """Was this very process, or its parent, let go with the same arguments before?"""
        try:
            process = self._proc.identify(record.tgid)
        except NotReadable:
            return False
        arguments = _hash(record.arguments)
        if self._was(process, arguments, hold) or self._was(self._parent(record), arguments, hold):
            return True
        self.remember(process, record.arguments, hold)
        return False

    def remember(self, process: ProcessId, arguments: list[bytes], hold: Hold) -> None:
        """The process came with these arguments, and `hold` tells what was answered."""
        self._last[process] = (_hash(arguments), hold)
        if len(self._last) > self._SIZE:
            self._last.popitem(last=False)

    def _was(self, process: ProcessId | None, arguments: int, hold: Hold) -> bool:
        same, before = self._last.get(process, (0, hold)) if process else (0, hold)
        return same == arguments and not before.denied

    def _parent(self, record: ExecRecord) -> ProcessId | None:
        try:
            return self._proc.identify(record.ppid)
        except NotReadable:
            return None


def _hash(arguments: list[bytes]) -> int:
    """They may be megabytes; argv[0] is the wrapper's."""
    return hash(tuple(arguments[1:]))
