"""What a worker of the daemon is told at its start."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple


class Handover(NamedTuple):
    """Settings, and the numbers of inherited fds. It travels as JSON on a command line."""

    fds: dict[str, int]
    """Those of `Opened.worker_fds`; ``notes``, the lock of the directory."""
    source: str
    """The name of the exec record source."""
    watch: dict[str, Any]
    """The worker's options: those of `watch`."""
    notes: str
    """The directory in which workers note what they do; it is the daemon's own."""

    def command(self) -> list[str]:
        """Return the command line of the worker."""
        # -P: root may be called from a directory in which anyone can put modules.
        return [sys.executable, "-P", "-m", "startgate.agent.worker", json.dumps(self._asdict())]

    @classmethod
    def from_json(cls, text: str) -> Handover:
        """Raises ValueError or TypeError for anything but what `command` wrote."""
        return cls(**json.loads(text))
