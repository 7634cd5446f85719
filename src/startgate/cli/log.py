"""Log lines to stderr, written by a thread of their own.

Reading threads may log. A terminal stopped by Ctrl-S, or a full pipe, must not stop them:
they only queue the line. When too many wait, or too many say the same, further ones are
counted instead.
"""

from __future__ import annotations

import atexit
import logging
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from startgate.foreign import one_line

_BACKLOG = 1000
_GRACE = 0.5
_LONGEST = 2000


@dataclass(slots=True)
class _Window:
    """The lines of one template since its first one."""

    end: float
    lines: int = 0
    left_out: int = 0


class RateLimit:
    """Lets pass `burst` lines of each template (``"container %s: %s"``) in `period` seconds."""

    _TEMPLATES = 1000

    def __init__(
        self, burst: int = 20, period: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._burst = burst
        self._period = period
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, _Window] = {}

    def admits(self, template: str) -> bool:
        """Count a line. False: leave it out; `due` tells of it later."""
        now = self._clock()
        with self._lock:
            window = self._windows.get(template)
            if window is None or (now >= window.end and not window.left_out):
                self._forget_old(now)
                window = self._windows[template] = _Window(now + self._period)
            window.lines += 1
            window.left_out += window.lines > self._burst
            return window.lines <= self._burst

    def due(self) -> list[str]:
        """Return a line for each template of which some were left out, once its time is over."""
        now = self._clock()
        with self._lock:
            ended = {t: w for t, w in self._windows.items() if w.left_out and now >= w.end}
            for template in ended:
                del self._windows[template]
        return [
            f"startgate: {window.left_out} more lines like {template!r} were left out"
            for template, window in ended.items()
        ]

    def wait(self) -> float | None:
        """Return the seconds until something is due; None: nothing will be."""
        with self._lock:
            ends = [window.end for window in self._windows.values() if window.left_out]
        return max(0.0, min(ends) - self._clock()) if ends else None

    def _forget_old(self, now: float) -> None:
        """Templates of ours are few; a library's may be any text."""
        if len(self._windows) >= self._TEMPLATES:
            self._windows = {t: w for t, w in self._windows.items() if now < w.end or w.left_out}


class QueuedHandler(logging.Handler):
    """Formats on the caller's thread, writes on its own."""

    def __init__(self, limit: RateLimit | None = None) -> None:
        super().__init__()
        self._limit = limit or RateLimit()
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._write, name="startgate-log", daemon=True)
        # It must not be the thread that takes a signal which is pending for the main thread: the
        # handler would run there at any moment, in a callback of libbpf too, which swallows exceptions.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self._thread.start()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        atexit.register(self._drain)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line; never waits."""
        if record.levelno > logging.DEBUG and not self._limit.admits(str(record.msg)):
            if self._lines.empty():  # the writer sleeps: it is to wake up when the time is over
                self._lines.put("")
        elif self._lines.qsize() >= _BACKLOG:
            self._dropped += 1
        else:
            dropped, self._dropped = self._dropped, 0
            if dropped:
                self._lines.put(f"startgate: {dropped} log lines were dropped")
            self._lines.put(self.format(record))

    def _write(self) -> None:
        while (line := self._next()) is not None:
            try:
                for text in filter(None, (line, *self._limit.due())):
                    sys.stderr.write(text + "\n")
                sys.stderr.flush()
            except OSError:  # nobody reads it
                return

    def _next(self) -> str | None:
        try:
            return self._lines.get(timeout=self._limit.wait())
        except queue.Empty:
            return ""

    def _drain(self) -> None:
        self._lines.put(None)
        self._thread.join(_GRACE)


class Formatter(logging.Formatter):
    """Foreign text may hold escape sequences and newlines: a terminal and a journal get none."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Clean the message."""
        record.message = one_line(record.message)[:_LONGEST]
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:
        """Clean each line of the traceback."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return "\n".join(map(one_line, text.split("\n")))


def configure(level: int) -> None:
    """Send all log lines of this process to stderr."""
    handler = QueuedHandler()
    handler.setFormatter(Formatter("startgate: %(levelname)s: %(message)s"))
    logging.basicConfig(level=level, handlers=[handler])
