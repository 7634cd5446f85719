"""What a watcher has in the kernel: fanotify groups, BPF programs, the counters of its readers.

A watcher opens its own; or a supervisor keeps it, and each of its workers inherits it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from startgate import records
from startgate.inherited import outbox
from startgate.inherited.outbox import Outbox
from startgate.inherited.progress import MARGIN, Progress
from startgate.kernel import features
from startgate.kernel.fanotify import FAN_ALLOW, Event, Group
from startgate.records import ExecRecordSource

COMMANDS, CONTAINERS = 0, 1
"""The groups' numbers in `Progress`."""

_OF_BPF = "bpf."


Pending = tuple[Sequence[Event], Sequence[Event]]
"""Events of each group."""


class Resources:
    """Owns two groups, an exec record source, the readers' counters, and the events on their way out."""

    def __init__(
        self,
        commands: Group,
        containers: Group,
        source: ExecRecordSource,
        progress: Progress,
        outbox: Outbox | None = None,
    ) -> None:
        self.commands = commands
        self.containers = containers
        self.source = source
        self.progress = progress
        self.outbox = outbox
        """Only where it is shared with a supervisor."""
        self.pending: Pending = ((), ())
        """For each group, the events that a dead process had read and not answered."""
        self.unseen = 0
        """How many more there were, which were let go: nobody could tell whose they are."""

    @classmethod
    def open(cls, exec_records: str, progress: Progress | None = None) -> Resources:
        """Open a new one. Raises KernelUnsupported, or UsageError for an unknown source."""
        commands = features.open_group(report_tid=True)
        containers = features.open_group(report_tid=False)
        try:
            source = records.choose(exec_records, commands)
            return cls(commands, containers, source, progress or Progress())._count_answers()
        except BaseException:
            commands.close()
            containers.close()
            raise

    @classmethod
    def inherit(cls, source: str, fds: Mapping[str, int]) -> Resources:
        """Take over the fds that `fds` returned in another process; `source` is the source's name.

        Whoever used them before must be dead. Call it first of all: see `_claim_pending`.
        """
        for fd in fds.values():
            os.set_inheritable(fd, False)
        commands, containers = Group(fd=fds["commands"]), Group(fd=fds["containers"])
        bpf = {name.removeprefix(_OF_BPF): fd for name, fd in fds.items() if name.startswith(_OF_BPF)}
        progress = Progress(fds["progress"], fds["ping"], fds["alert"])
        box = Outbox(fds["outbox"])
        resources = cls(commands, containers, records.inherit(source, commands, bpf), progress, box)
        resources.pending = resources._claim_pending()
        return resources._count_answers()

    def _count_answers(self) -> Resources:
        """From now on: while pending events are claimed, many numbers are answered that nobody is owed."""
        for number, group in ((COMMANDS, self.commands), (CONTAINERS, self.containers)):
            group.count = self.progress.answered(number)
        return self

    def fds(self) -> dict[str, int]:
        """Return the fds that keep all of it at work when this process is gone.

        Only where it was opened with `Progress.shared`.
        """
        assert self.progress.page is not None  # noqa: S101
        fds = {
            "commands": self.commands.fileno(),
            "containers": self.containers.fileno(),
            "progress": self.progress.page,
            "ping": self.progress.ping,
            "alert": self.progress.alert,
            "outbox": outbox.create(),
        }
        return fds | {_OF_BPF + name: fd for name, fd in self.source.fds().items()}

    def _claim_pending(self) -> Pending:
        """Find the events by their numbers, and keep these from being used for further events.

        Before anything else is opened here: all that is open was open in the dead process too,
        so no event has the number of one of our own fds.
        """
        found: tuple[list[Event], list[Event]] = ([], [])
        for number in range(self.progress.top + MARGIN):
            for group, events in zip((self.commands, self.containers), found, strict=True):
                pid = self.source.pending(number, group)
                if pid and _reserve(number):
                    events.append(Event(0, number, pid, again=True))
                else:
                    self.unseen += _let_go(group, number)
        return found

    def close(self) -> None:
        """Let all go, detach; an inherited one's kernel side stays with the other process."""
        self.containers.close()
        self.commands.close()
        self.source.close()
        self.progress.close()


def _let_go(group: Group, number: int) -> bool:
    """Answer the event of this number, if there is one."""
    try:
        group.answer(number, FAN_ALLOW)
    except OSError:  # ENOENT
        return False
    return True


def _reserve(number: int) -> bool:
    """Open something under this fd number. False: it is in use."""
    try:
        os.fstat(number)
    except OSError:
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        if null != number:
            os.dup2(null, number, inheritable=False)
            os.close(null)
        return True
    return False
