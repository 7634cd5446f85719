"""What tells how an `exec` came out: who follows a runtime on its way into a container."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from startgate.kernel.process import ProcessId


class ExecOutcome(NamedTuple):
    """How an `exec` came out. Host pids."""

    runtime: ProcessId
    """The runtime's process: it names the `exec`."""
    init: int | None
    """The init of the container, as `follow` was told."""
    pid: int | None
    """The process that was brought into the container, and has ended; None: there was none."""
    status: int | None
    """The wait status of that process, or of the runtime; None where unknown."""
    oom_victim: bool = False
    lived: float | None = None
    """Seconds, from its creation."""


class Joins(Protocol):
    """Follows runtimes, and who descends from them, until one of these executes the container's program."""

    def follow(self, pid: int, start_ns: int, mnt: int, init: int) -> None:
        """Follow the runtime `pid`, which is held, until a program is executed in the mount namespace `mnt`
        (0: none is seen). `start_ns`: 0 where it is not known. Raises OSError: E2BIG where too many are
        followed."""

    def forget(self, pid: int) -> None:
        """It was refused."""

    def fileno(self) -> int:
        """Return an fd that polls readable when there are outcomes."""

    def read(self) -> list[ExecOutcome]:
        """Return those since the last call, oldest first. Two may be of one `exec` that brought none."""

    def close(self) -> None:
        """Stop reading."""
