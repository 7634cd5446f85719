"""What is known of an execve that is held, and the protocol of those who know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from startgate.exits import ExitMemory
from startgate.kernel.fanotify import Event, Group
from startgate.kernel.process import Facts, ProcessId


class ExecRecord(msgspec.Struct, frozen=True):
    """The execve that a runtime binary's permission event is about. Host pids."""

    tid: int
    tgid: int
    ppid: int
    trusted: bool
    """The caller's effective uid is 0 in the initial user namespace."""
    arguments: list[bytes]
    complete: bool
    """False: arguments are missing or cut; `procfs.complete` reads them from the task."""
    argv: int = 0
    """Address of the argv array in the caller's memory, 0 where unknown."""
    uid: int = 0
    """The caller's effective uid, as the initial user namespace counts."""
    start_time: int | None = None
    """The process's, in clock ticks since boot, as in /proc/PID/stat; None: read it there."""
    namespaces: dict[str, int] = {}
    """The process's: inode numbers; empty where unknown."""
    parent_comm: str | None = None
    """The comm of the parent process; None where unknown."""
    loginuid: int | None = None
    """Who logged in (pam_loginuid(8)), whatever the uid is now; None: nobody, or unknown."""
    session: int | None = None
    """The audit session."""

    @property
    def process(self) -> ProcessId | None:
        """The process, beyond all doubt; None where the start time is unknown."""
        return None if self.start_time is None else ProcessId(self.tgid, self.start_time)


class Sighting(msgspec.Struct, frozen=True):
    """An execution, not held, of a file that nobody watches, which looks like a runtime's."""

    record: ExecRecord
    inode: int
    """The file's number."""
    path: bytes
    """As the caller wrote it; may be cut."""


class Sightings(Protocol):
    """A stream of sightings, for one reader."""

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""

    def read(self) -> list[Sighting]:
        """Return those since the last call, oldest first. Raises OSError."""

    def close(self) -> None:
        """Stop reading."""


class ExecRecordSource(Protocol):
    """Where the reading thread gets the record of an event from."""

    name: str

    def take(self, event: Event) -> ExecRecord | None:
        """Return the record of this event; call it exactly once per event, in reading order.

        Never waits. None: this source can't tell without waiting.
        """

    def table(self) -> int | None:
        """Return the fd of the BPF map in which the record of an event is found by its thread id.

        None: only `take` knows where it is.
        """

    def expect(self, names: Iterable[str]) -> None:
        """Be quick where files of these names are executed; others are no less safe, but slower."""

    def host_pid(self, event: Event, group: Group) -> int:
        """Return the event's pid in the initial pid namespace, 0 where it can't be told.

        A thread id for a group made with ``report_tid``. On the reading thread only.
        """

    def pending(self, number: int, group: Group) -> int:
        """Return the host pid of the event that was read as fd `number` and is not answered.

        0: there is none, or this source can't tell.
        """

    def exits(self) -> ExitMemory | None:
        """Return what remembers the wait statuses of processes, if this source can."""

    def sightings(self) -> Sightings | None:
        """Return the executions of what may be runtimes that nobody watches, if this source sees them.

        The caller closes it.
        """

    def look(self) -> Callable[[int], Facts | None] | None:
        """Return what tells of a process, given its pidfd, if this source can; see `Proc.look`."""

    def fds(self) -> dict[str, int]:
        """Return the fds that another process needs to go on with it: see `records.inherit`."""

    def close(self) -> None:
        """Detach and unload; safe to call twice."""
