"""Source `table`: the keeper looks ``exec_args`` up by the event's thread id.

The task is blocked in its execve, so its record is there and stable. No kprobes.
"""

from __future__ import annotations

from startgate.records.bpf import BpfSource


class Table(BpfSource):
    """Looks records up where the tracepoints put them."""

    name = "table"
    map = "exec_args"
