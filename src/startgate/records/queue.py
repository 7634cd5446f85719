"""Source `queue`: the design as drawn. The kernel pushes one record to ``ig_fa_records``
each time the keeper takes an event off its group's queue; it pops one per event.
"""

from __future__ import annotations

from collections.abc import Mapping

from startgate.errors import KernelUnsupported
from startgate.kernel.fanotify import Group
from startgate.records.bpf import BpfSource


class Queue(BpfSource):
    """Takes the records that the kprobes push."""

    name = "queue"
    map = "ig_fa_records"

    def __init__(self, group: Group | None, inherited: Mapping[str, int] | None = None) -> None:
        """Raises KernelUnsupported in one sentence, e.g. on a kernel without kprobes."""
        try:
            super().__init__(group, inherited, kprobes=True)
        except KernelUnsupported as error:
            raise KernelUnsupported(
                f"the exec record source `queue` needs kprobes on fsnotify_remove_first_event: {error}",
                details=error.details,
            ) from error
