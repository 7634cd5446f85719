"""What the supervisor is told at its start, and hands on: to its workers, and to its next self."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any, NamedTuple, NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
"""Those that the supervisor acts on."""


class Past(NamedTuple):
    """What a supervisor knows that executes itself anew. Times are monotonic, which execve leaves alone."""

    worker: int
    """The pid of its worker, 0 where there is none."""
    held_until: float
    """When what waits for a worker has waited enough."""
    gap: str
    """What was let go unseen since a worker was ready."""
    born: float
    """When the worker became ready; in the future: it is not."""
    failures: int
    """How many workers before died soon after they were ready, or were never."""


class Handover(NamedTuple):
    """Settings, and the numbers of inherited fds. It travels as JSON on a command line."""

    fds: dict[str, int]
    """Those of `Resources.fds` and of `words.fds`; ``notes``, the lock of the directory."""
    source: str
    """The name of the exec record source."""
    watch: dict[str, Any]
    """The worker's options: those of `watch`."""
    hang_limit: float
    notes: str
    """The directory in which workers note what they do; it is the daemon's own."""
    supervisor: int = 0
    """Its pid."""
    past: Past | None = None
    """For a supervisor that takes over from itself."""

    def command(self, module: str) -> list[str]:
        """Return the command line of a module of this package that reads it."""
        # -P: root may be called from a directory in which anyone can put modules.
        values = self._asdict() | {"past": self.past and self.past._asdict()}
        return [sys.executable, "-P", "-m", f"startgate.agent.{module}", json.dumps(values)]

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
        values = json.loads(text)
        past = values.pop("past", None)
        return cls(**values, past=Past(**past) if past else None)
