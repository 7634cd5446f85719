"""`trace`: a tracer for each container, started while that is held."""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

from startgate.cli.ending import ENDS, ended_by, signals_later
from startgate.cli.table import shorten
from startgate.errors import StartgateError
from startgate.foreign import one_line
from startgate.tracing import Told, Tracers
from startgate.watcher import Watcher

_WIDTH = 20


class Printer:
    """Prints what tracers print on stdout and stderr, a line at a time, and what becomes of them on stderr.

    `ended` is set once `count` of them have ended.
    """

    def __init__(self, raw: bool, count: int | None) -> None:
        """`raw`: the lines of tracers as they are, without the name of the container."""
        self._raw = raw
        self._count = count
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self.failures = 0

    def tell(self, told: Told) -> None:
        """On any thread."""
        name = shorten(told.container.name or told.container.id, _WIDTH)
        if told.kind in ("stdout", "stderr"):
            line = told.text if self._raw else f"{name} | {told.text}"
            self._write(1 if told.kind == "stdout" else 2, line)
            return
        self._write(2, f"startgate: {name}: tracer {_in_words(told)}")
        with self._lock:
            self.failures += told.kind == "failed"
            if self._count is not None and told.kind == "ended":
                self._count -= 1
                if self._count <= 0:
                    self.ended.set()

    def _write(self, fd: int, line: str) -> None:
        # A tab is no danger to a terminal, and tools print them.
        text = "\t".join(map(one_line, line.split("\t"))) if os.isatty(fd) else line
        data = text.encode(errors="replace") + b"\n"
        try:
            while data:
                data = data[os.write(fd, data) :]
        except OSError:  # nobody reads it any more
            self.ended.set()


def _in_words(told: Told) -> str:
    match told.kind:
        case "late":
            return f"{told.text}, late: its container ran before"
        case "failed":
            return f"failed: {told.text}"
        case "ended":
            return f"ended: {told.text}"
        case _:
            return told.text


def run(watcher: Watcher, tracers: Tracers, printer: Printer, seconds: float | None) -> None:
    """Trace until a signal, the time, or the count. Raises StartgateError, also where a tracer had failed."""
    sys.setswitchinterval(0.0005)  # as `watch`: who reads must not wait for who computes
    with ended_by(ENDS), tracers:
        tracers.register(watcher)
        with signals_later():
            watcher.start()
        try:
            _say_ready(watcher)
            _wait(watcher, printer, None if seconds is None else time.monotonic() + seconds)
        finally:
            tracers.close()
            watcher.close()
    if printer.failures:
        raise StartgateError(f"{printer.failures} tracers failed, as told above")


def _say_ready(watcher: Watcher) -> None:
    names = one_line(", ".join(watcher.binaries)) or "none installed yet"
    with suppress(OSError):
        sys.stderr.write(f"startgate: ready to trace what these start: {names}\n")
        sys.stderr.flush()


def _wait(watcher: Watcher, printer: Printer, until: float | None) -> None:
    """Look at the events, which nobody else takes, for what was missed."""
    while not printer.ended.is_set() and (until is None or time.monotonic() < until):
        event = watcher.events.get(timeout=0.2)
        if event is None:
            watcher.check()
        elif event.type == "lost" and event.reason:
            sys.stderr.write(f"startgate: lost: {one_line(event.reason.message)}\n")
