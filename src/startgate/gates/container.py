"""The pid-file gate and the first-exec gate: both read the second fanotify group."""

from __future__ import annotations

from startgate.gates.context import Context, Job
from startgate.gates.created import Created
from startgate.hold import Hold
from startgate.keeper.protocol import Held
from startgate.kernel.fanotify import FAN_OPEN_EXEC_PERM
from startgate.listeners import lost


class ContainerGate:
    """Decides on reads in marked directories, and on executions of marked programs."""

    def __init__(self, context: Context, created: Created) -> None:
        self._context = context
        self._created = created

    def decide(self, held: Held, hold: Hold) -> Job | None:
        """Return what is to be done while the task is held; None: nothing. Never waits."""
        pid = held.pid
        if held.fd < 0:  # there was no room for it in our table of fds: recvmsg(2), MSG_CTRUNC
            message = "a task was let go unseen: no file descriptor was free (RLIMIT_NOFILE)"
            self._context.listeners.publish(lost(message, missed=1))
            self.missed()
            return None
        with hold.fd() as fd:
            if held.mask & FAN_OPEN_EXEC_PERM:
                entries = self._context.programs.match(fd)
                if not entries:
                    return lambda: self._unmark(hold)
                return (lambda: self._created.at_first_exec(entries, pid, hold)) if pid else None
            entry = self._context.pid_files.match(fd)
        return (lambda: self._created.at_pid_file(entry, hold)) if entry else None

    def missed(self) -> None:
        """Gates were passed unseen. Never waits."""
        self._context.workers.submit(self._created.gaps.catch_up)

    def _unmark(self, hold: Hold) -> None:
        with hold, hold.fd() as fd:
            self._context.programs.unmark_unused(fd)
