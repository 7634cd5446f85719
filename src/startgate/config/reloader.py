"""Loads the files again when they change, or when somebody asks for it."""

from __future__ import annotations

import logging
import os
import select
import threading

from startgate.config.active import Active, identity_of
from startgate.errors import StartgateError
from startgate.kernel.inotify import Inotify

log = logging.getLogger(__name__)

_SETTLE = 0.1
"""Seconds without a change before the files are read: editors write in several steps."""


class Reloader:
    """Loads again what is in force, when it is told to, or when a file has changed.

    A new file that can't be used leaves the old one in force, and is logged.
    """

    def __init__(self, active: Active) -> None:
        self._active = active
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._inotify = Inotify()
        self._directories: set[str] = set()
        self._thread = threading.Thread(target=self._run, name="startgate-reload", daemon=True)

    def start(self) -> None:
        """Begin to look for changes."""
        self._watch()
        self._thread.start()

    def reload(self) -> None:
        """Load soon, changed or not. Fit for a signal handler; never waits."""
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._inotify.close()
        os.close(self._wake)

    def __enter__(self) -> Reloader:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        asked = False
        while not self._closed:
            if asked or self._active.outdated:
                asked = False
                self._settle()
                self._load()
            else:
                select.select([self._wake, self._inotify.fileno()], [], [])
                asked = self._drain()

    def _drain(self) -> bool:
        """Take what has come; return whether somebody asked."""
        list(self._inotify.read())
        try:
            return bool(os.eventfd_read(self._wake))
        except BlockingIOError:
            return False

    def _settle(self) -> None:
        """Wait until the files stay as they are: one that is written in place is empty at first."""
        before: list[object] = []
        while (now := [identity_of(path) for path in self._active.files]) != before and not self._closed:
            before = now
            select.select([self._wake], [], [], _SETTLE)

    def _load(self) -> None:
        try:
            self._active.load()
            log.warning("reloaded: %s", ", ".join(self._active.files))
        except StartgateError as error:
            log.error("not reloaded, what was in force before stays: %s", error)
        self._watch()

    def _watch(self) -> None:
        for directory in {os.path.dirname(os.path.abspath(path)) for path in self._active.files}:
            if directory not in self._directories:
                try:
                    self._inotify.watch(directory, written=True)
                    self._directories.add(directory)
                except OSError as error:
                    log.warning("changes in %s are not noticed: %s", directory, error.strerror)
