"""Exec record sources: how the arguments of a held execve come to user space.

`queue` and `table` use BPF, `procfs` needs none; `choose` takes the best that works.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from startgate.errors import KernelUnsupported, UsageError
from startgate.kernel.fanotify import Group
from startgate.records.procfs import Procfs
from startgate.records.queue import Queue
from startgate.records.record import ExecCounter, ExecRecord, ExecRecordSource, Sighting, Sightings
from startgate.records.table import Table

__all__ = [
    "SOURCES",
    "ExecCounter",
    "ExecRecord",
    "ExecRecordSource",
    "Sighting",
    "Sightings",
    "choose",
    "inherit",
]

log = logging.getLogger(__name__)

SOURCES: dict[str, Callable[[Group], ExecRecordSource]] = {
    "table": Table,
    "queue": Queue,
    "procfs": lambda group: Procfs(),
}


def choose(name: str, group: Group) -> ExecRecordSource:
    """Return the source `name`; `auto` is `table`, or `procfs` where BPF can't be used.

    Raises KernelUnsupported when the named source can't work here, UsageError for a
    name that is none.
    """
    if name != "auto":
        if name not in SOURCES:
            raise UsageError(f"no exec record source {name!r}: auto, {', '.join(SOURCES)}")
        return SOURCES[name](group)
    try:
        return Table(group)
    except KernelUnsupported as error:
        log.warning("BPF can't be used, reading held tasks through /proc instead: %s", error)
        return Procfs()


def inherit(name: str, fds: Mapping[str, int]) -> ExecRecordSource:
    """Return the source `name` over the fds that its `fds` returned in another process."""
    if name == Procfs.name:
        return Procfs()
    return (Queue if name == Queue.name else Table)(None, fds)
