"""What a watcher has in the kernel: the BPF programs, and the events on their way out.

A watcher opens its own, and a keeper for it; or the daemon's keeper has it, and each worker inherits it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from startgate import records
from startgate.inherited import outbox
from startgate.inherited.outbox import Outbox
from startgate.keeper import start
from startgate.keeper.keeper import Keeper
from startgate.kernel import features
from startgate.kernel.fanotify import Group
from startgate.records import ExecRecordSource

_OF_BPF = "bpf."


class Opened:
    """Owns what is opened once: two groups, an exec record source. For `keep`, or for a daemon."""

    def __init__(self, exec_records: str) -> None:
        """Raises KernelUnsupported, or UsageError for an unknown source."""
        self.commands: Group = features.open_group(report_tid=True)
        self.containers: Group = features.open_group(report_tid=False)
        try:
            self.source = records.choose(exec_records, self.commands)
        except BaseException:
            self.commands.close()
            self.containers.close()
            raise

    def keep(self, hold_timeout: float) -> Resources:
        """Give the groups to a keeper. Raises KernelUnsupported."""
        try:
            keeper = start.for_this_program(
                self.commands, self.containers, self.source.keeper_fds(), hold_timeout=hold_timeout
            )
        except BaseException:
            self.source.close()
            raise
        return Resources(keeper, self.source)

    def worker_fds(self, number: int = 0) -> dict[str, int]:
        """Return what each worker of a daemon inherits: see `Resources.inherit`, and `outbox.create`."""
        of_bpf = {_OF_BPF + name: fd for name, fd in self.source.fds().items()}
        return of_bpf | {"outbox": outbox.create(number)}


class Resources:
    """Owns the connection to a keeper, and an exec record source."""

    def __init__(self, keeper: Keeper, source: ExecRecordSource, outbox: Outbox | None = None) -> None:
        self.keeper = keeper
        self.source = source
        self.outbox = outbox
        """Only a daemon's: it outlives its worker."""

    @classmethod
    def inherit(cls, source: str, fds: Mapping[str, int]) -> Resources:
        """Take over the fds that `worker_fds` returned; `source` is the source's name.

        Raises KernelUnsupported where the daemon's keeper does not answer.
        """
        for fd in fds.values():
            os.set_inheritable(fd, False)
        bpf = {name.removeprefix(_OF_BPF): fd for name, fd in fds.items() if name.startswith(_OF_BPF)}
        return cls(start.inherited(), records.inherit(source, bpf), Outbox(fds["outbox"]))

    def close(self) -> None:
        """Leave the keeper; detach what is our own."""
        self.keeper.close()
        self.source.close()
