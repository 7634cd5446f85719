"""Source `table`: look ``exec_args`` up by the event's thread id.

The task is blocked in its execve, so its record is there and stable. No kprobes.
"""

from __future__ import annotations

from startgate.kernel.fanotify import Event
from startgate.records import layout
from startgate.records.bpf import BpfSource
from startgate.records.record import ExecRecord


class Table(BpfSource):
    """Looks records up where the tracepoints put them."""

    name = "table"

    def take(self, event: Event) -> ExecRecord | None:
        """See ExecRecordSource."""
        return layout.decode(event.record) if event.record else self._look_up(event)

    def table(self) -> int | None:
        """See ExecRecordSource: in a child pid namespace the event's thread id is another."""
        return self._exec_args.fd if self.bpf.sees_host_pids else None
