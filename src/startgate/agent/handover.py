"""What the supervisor is told at its start, and hands on: to its workers, and to its next self."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NamedTuple, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
"""Those that the supervisor acts on."""


class Handover(NamedTuple):
    """Settings, and the numbers of inherited fds. It travels as JSON on a command line."""

    fds: dict[str, int]
    """Those of `Resources.fds`; ``ready``, an eventfd that the worker writes to; ``notes``, the lock of
    the directory."""
    source: str
    """The name of the exec record source."""
    watch: dict[str, Any]
    """The worker's options: those of `watch`."""
    hang_limit: float
    notes: str
    """The directory in which workers note what they do; it is the daemon's own."""
    supervisor: int = 0
    """Its pid."""
    worker: int = 0
    """The pid of the worker that runs, for a supervisor that takes over."""
    gap: str = ""
    """What was let go unseen since the worker before this one ended."""

    def command(self, module: str) -> list[str]:
        """Return the command line of a module of this package that reads it."""
        # -P: root may be called from a directory in which anyone can put modules.
        return [sys.executable, "-P", "-m", f"startgate.agent.{module}", json.dumps(self._asdict())]

    def become_supervisor(self) -> NoReturn:
        """Replace this process by the supervisor. Raises OSError.

        Until that listens, signals wait: execve resets handlers, and SIGUSR2 would kill it.
        """
        for fd in self.fds.values():
            os.set_inheritable(fd, True)
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.execv(sys.executable, self.command("supervisor"))  # noqa: S606

    @classmethod
    def from_json(cls, text: str) -> Handover:
        """Raises ValueError or TypeError for anything but what `command` wrote."""
        return cls(**json.loads(text))
