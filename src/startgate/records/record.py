"""What is known of an execve that is held, and the protocol of those who know it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from startgate.counter import Counter
from startgate.exits import ExitMemory, Joins
from startgate.kernel.process import ProcessFacts, ProcessId


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
    start_ns: int = 0
    """When the process started, as the kernel has it: ns of CLOCK_BOOTTIME; 0: unknown."""

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
    watched: bool = False
    """Is the file marked? Then the execution was held, unless the file was opened right before the mark."""


class Sightings(Protocol):
    """A stream of sightings, for one reader."""

    def tell_all(self) -> None:
        """Files are about to be marked: for a moment tell of starts by files that are watched, too.

        Who opened one before its mark was not held, and has it marked at the end of its execve.
        """

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""

    def read(self) -> list[Sighting]:
        """Return those since the last call, oldest first. Raises OSError."""

    def close(self) -> None:
        """Stop reading."""


class ExecCounter(Protocol):
    """Counts the executions of runtimes, whatever becomes of gates. Thread-safe."""

    def asked(self, tid: int) -> None:
        """Say that a gate was asked about the execve of a thread (host pid). Never waits. Raises OSError."""

    def read(self) -> Counter:
        """Return what was counted by now. Raises OSError."""


class ExecRecordSource(Protocol):
    """What records execs in the kernel. The keeper takes the record of each event that it reads."""

    name: str

    def keeper_fds(self) -> dict[str, int]:
        """Return what the keeper needs to take records: of ``table``, ``queue``, ``pending``."""

    def expect(self, names: Iterable[str]) -> None:
        """Be quick where files of these names are executed; others are no less safe, but slower."""

    def exits(self) -> ExitMemory | None:
        """Return what remembers the wait statuses of processes, if this source can."""

    def joins(self) -> Joins | None:
        """Return what tells how each `exec` came out, if this source can. The caller closes it."""

    def sightings(self) -> Sightings | None:
        """Return the executions of what may be runtimes that nobody watches, if this source sees them.

        The caller closes it.
        """

    def look(self) -> Callable[[int], ProcessFacts | None] | None:
        """Return what tells of a process, given its pidfd, if this source can; see `Proc.look`."""

    def counter(self) -> ExecCounter | None:
        """Return what counts executions, if this source can."""

    def fds(self) -> dict[str, int]:
        """Return the fds that another process needs to go on with it: see `records.inherit`."""

    def close(self) -> None:
        """Detach and unload; safe to call twice."""
