"""Source `procfs`: no BPF at all, /proc/TID/syscall and /proc/TID/mem of the held task.

It is also how the other sources read what a record could not hold. All of it may wait
(for the task to sleep, for a page): only on a worker.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from msgspec.structs import replace

from startgate.errors import KernelUnsupported, NotReadable
from startgate.kernel import features
from startgate.kernel.process import Proc
from startgate.records.record import ExecRecord

# The event is queued before the task sleeps, and /proc/TID/syscall reads `running` until
# then: at once on an idle machine, 14 ms was the longest seen under load.
_PAUSES = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


_CAP_SYS_ADMIN = 21


class Procfs:
    """Knows nothing without waiting: each record is read on a worker."""

    name = "procfs"

    def __init__(self) -> None:
        """Raises KernelUnsupported in a child pid namespace: events have no pid there."""
        if not features.in_initial_pid_namespace():
            raise KernelUnsupported(
                "the exec record source `procfs` can't tell who is held from inside a child pid namespace"
            )

    def keeper_fds(self) -> dict[str, int]:
        """See ExecRecordSource."""
        return {}

    def expect(self, names: Iterable[str]) -> None:
        """See ExecRecordSource."""

    def exits(self) -> None:
        """See ExecRecordSource."""

    def joins(self) -> None:
        """See ExecRecordSource."""

    def sightings(self) -> None:
        """See ExecRecordSource."""

    def look(self) -> None:
        """See ExecRecordSource."""

    def counter(self) -> None:
        """See ExecRecordSource."""

    def fds(self) -> dict[str, int]:
        """See ExecRecordSource."""
        return {}

    def close(self) -> None:
        """See ExecRecordSource."""


def identify(proc: Proc, tid: int) -> ExecRecord:
    """Return who is held, without its arguments; never waits. Raises NotReadable."""
    status = proc.status(tid)
    try:
        euid = int(status["Uid"].split()[1])
        tgid, ppid = int(status["Tgid"]), int(status["PPid"])
        able = int(status["CapEff"], 16) >> _CAP_SYS_ADMIN & 1  # a container's root has it not
    except (KeyError, ValueError, IndexError) as error:
        raise NotReadable(f"the status of thread {tid} has an unknown format") from error
    trusted = euid == 0 and bool(able) and proc.is_initial_user_namespace(tid)
    return ExecRecord(tid, tgid, ppid, trusted, [], complete=False, uid=euid)


def complete(proc: Proc, record: ExecRecord) -> ExecRecord:
    """Return the record with all arguments, read from the held task. Raises NotReadable."""
    if record.complete:
        return record
    return replace(record, arguments=_read_arguments(proc, record), complete=True)


def _read_arguments(proc: Proc, record: ExecRecord) -> list[bytes]:
    if record.argv:
        return proc.arguments_at(record.tid, record.argv)
    for pause in _PAUSES[:-1]:
        time.sleep(pause)
        try:
            return proc.arguments(record.tid)
        except NotReadable:
            if proc.start_time(record.tid) is None:
                raise
    time.sleep(_PAUSES[-1])
    return proc.arguments(record.tid)
