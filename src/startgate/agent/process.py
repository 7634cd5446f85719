"""The worker's process, as its supervisor has it."""

from __future__ import annotations

import os
import signal
import sys

from startgate.agent.handover import Handover


class WorkerProcess:
    """Owns a child of ours, which nobody else reaps, and its pidfd."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @classmethod
    def start(cls, handover: Handover) -> WorkerProcess:
        """Raises OSError: EAGAIN, ENOMEM; ENOENT while Python is being replaced."""
        # SIGHUP waits until the worker knows what to do at it: it would kill it before.
        command, mask = handover.command("worker"), (signal.SIGHUP,)
        return cls(os.posix_spawn(sys.executable, command, os.environ, setsigmask=mask))

    def fileno(self) -> int:
        """Return the pidfd: it polls readable when the process has ended."""
        return self._pidfd

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)  # not yet waited for: the pid is its

    def reap(self) -> int:
        """Wait until it has ended; return its exit status, or minus the signal. Closes the pidfd."""
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        return os.waitstatus_to_exitcode(status)
