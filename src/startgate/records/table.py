"""Source `table`: look ``exec_args`` up by the event's thread id.

The task is blocked in its execve, so its record is there and stable. No kprobes.
"""

from __future__ import annotations

from startgate.kernel.fanotify import Event
from startgate.records.bpf import BpfSource
from startgate.records.record import ExecRecord


class Table(BpfSource):
    """Looks records up where the tracepoints put them."""

    name = "table"

    def take(self, event: Event) -> ExecRecord | None:
        """See ExecRecordSource."""
        return self._look_up(event)
