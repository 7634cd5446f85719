"""Log lines to stderr, written by a thread of their own.

Reading threads may log. A terminal stopped by Ctrl-S, or a full pipe, must not stop them:
they only queue the line. When too many wait, further ones are counted instead.
"""

from __future__ import annotations

import atexit
import logging
import queue
import sys
import threading

_BACKLOG = 1000
_GRACE = 0.5


class QueuedHandler(logging.Handler):
    """Formats on the caller's thread, writes on its own."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="startgate-log", daemon=True)
        self._thread.start()
        atexit.register(self._drain)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; never waits."""
        if self._lines.qsize() >= _BACKLOG:
            self._dropped += 1
            return
        dropped, self._dropped = self._dropped, 0
        if dropped:
            self._lines.put(f"startgate: {dropped} log lines were dropped")
        self._lines.put(self.format(record))

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                sys.stderr.write(line + "\n")
                sys.stderr.flush()
            except OSError:  # nobody reads it
                return

    def _drain(self) -> None:
        self._lines.put(None)
        self._thread.join(_GRACE)


def configure(level: int) -> None:
    """Send all log lines of this process to stderr."""
    handler = QueuedHandler()
    handler.setFormatter(logging.Formatter("startgate: %(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
