"""Source `queue`: the design as drawn. The kernel pushes one record to ``ig_fa_records``
each time we take an event off our group's queue; we pop one per event.
"""

from __future__ import annotations

from collections.abc import Mapping

from startgate.errors import KernelUnsupported
from startgate.kernel.fanotify import Event, Group
from startgate.records import layout
from startgate.records.bpf import BpfSource
from startgate.records.record import ExecRecord

_STRAYS = 64


class Queue(BpfSource):
    """Pops the records that the kprobes push."""

    name = "queue"

    def __init__(self, group: Group, inherited: Mapping[str, int] | None = None) -> None:
        """Raises KernelUnsupported in one sentence, e.g. on a kernel without kprobes."""
        try:
            super().__init__(group, inherited, kprobes=True)
        except KernelUnsupported as error:
            raise KernelUnsupported(
                f"the exec record source `queue` needs kprobes on fsnotify_remove_first_event: {error}",
                details=error.details,
            ) from error
        self._records = self.bpf.object.map("ig_fa_records")
        self._strays: dict[int, ExecRecord | None] = {}
        while inherited and self._records.pop() is not None:
            pass  # of events that a dead worker read: the next record is to be the next event's

    def table(self) -> None:
        """See ExecRecordSource: for each event a record must be popped."""

    def take(self, event: Event) -> ExecRecord | None:
        """See ExecRecordSource.

        The queue is out of step when the kernel dropped an event after it was picked
        (EMFILE), or when the queue was full. The thread id tells: records of others
        are kept aside for a while.
        """
        if event.again:
            return self._look_up(event)
        wanted = self.host_pid(event, self._group)
        while (value := self._records.pop()) is not None:
            data = memoryview(value).cast("B")
            tid, record = layout.tid_of(data), layout.decode(data)
            if tid == wanted or not wanted:
                self._strays.pop(tid, None)
                return record
            self._strays[tid] = record
            if len(self._strays) > _STRAYS:
                del self._strays[next(iter(self._strays))]
        return self._strays.pop(wanted, None)
