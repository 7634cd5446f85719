"""Source `table`: look ``exec_args`` up by the event's thread id.

The task is blocked in its execve, so its record is there and stable. No kprobes.
"""

from __future__ import annotations

from startgate.kernel.fanotify import Event, Group
from startgate.records import layout
from startgate.records.bpf import BpfSource
from startgate.records.record import ExecRecord


class Table(BpfSource):
    """Looks records up where the tracepoints put them."""

    name = "table"

    def __init__(self, group: Group) -> None:
        """Raises KernelUnsupported, which says what the kernel lacks."""
        super().__init__(group)
        self._exec_args = self.bpf.object.map("exec_args")

    def take(self, event: Event) -> ExecRecord | None:
        """See ExecRecordSource."""
        value = self._exec_args.get(self.host_pid(event, self._group))
        return None if value is None else layout.decode(memoryview(value).cast("B"))
