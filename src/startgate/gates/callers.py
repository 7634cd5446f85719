"""Who stands behind a runtime's command: its parent, and theirs, up to pid 1."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from startgate.errors import NotReadable
from startgate.events import Ancestor, printable
from startgate.kernel.process import Proc, ProcessId
from startgate.records import ExecRecord

GENERATIONS = 5
"""That are told: an engine's runtime has two, its shim and pid 1. Each costs a held command 10 us."""


class Behind(NamedTuple):
    """A process behind the command."""

    process: ProcessId
    told: Ancestor


class Line:
    """The ancestors of a process, the nearest first, as far as they can be read.

    Each is looked at once, when it is asked for.
    """

    def __init__(self, proc: Proc, pid: int, child_start: int | None) -> None:
        """Of `pid` and who is above; its child was started at `child_start`, in clock ticks."""
        self._seen: list[Behind] = []
        self._rest = _walk(proc, pid, child_start)

    def __iter__(self) -> Iterator[Behind]:
        yield from self._seen
        for behind in self._rest:
            self._seen.append(behind)
            yield behind

    def told(self) -> tuple[Ancestor, ...]:
        """Return what an event tells."""
        return tuple(behind.told for behind in islice(self, GENERATIONS))


def line_of(proc: Proc, record: ExecRecord) -> Line:
    """Return those behind a runtime's command."""
    return Line(proc, record.ppid, record.start_time)


def _walk(proc: Proc, pid: int, child_start: int | None) -> Iterator[Behind]:
    while pid > 0:
        exe = proc.executable(pid)  # before the start time, which then proves that it was this process's
        try:
            stat = proc.stat(pid)
        except NotReadable:
            return
        if child_start is not None and stat.start_time > child_start:
            return  # younger than its child: the parent has ended, and this has its pid by now
        told = Ancestor(pid, printable(stat.comm), printable(proc.on_host(exe)) if exe else None)
        yield Behind(ProcessId(pid, stat.start_time), told)
        pid, child_start = stat.ppid, stat.start_time
