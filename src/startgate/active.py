"""The rules and hooks in force: registered with a watcher, and exchanged while it runs."""

from __future__ import annotations

import logging
import os
import select
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Protocol

from startgate import config, kept, tomlfile
from startgate.errors import StartgateError, UsageError
from startgate.hooks import HookConfig, Hooks
from startgate.kernel.inotify import Inotify
from startgate.listeners import Registration
from startgate.policy import rules
from startgate.tomlfile import Reader

log = logging.getLogger(__name__)

_SETTLE = 0.1
"""Seconds without a change before the files are read: editors write in several steps."""


class Registers(Protocol):
    """Who calls the callbacks: a watcher."""

    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None:
        """Exchange callbacks in one step."""


class Active:
    """What a configuration file and the command line ask to be done at starts.

    Rules are asked before hooks are run. A context manager: leaving it ends the hooks.
    """

    def __init__(
        self,
        watcher: Registers | None,
        path: str | None = None,
        *,
        policy: Sequence[str] = (),
        hooks: Sequence[HookConfig] = (),
        keep_at: str | None = None,
    ) -> None:
        """`policy` and `hooks` come before those of the file at `path`. No `watcher`: see `attach`.

        `keep_at` is where the files are kept as they were when they could last be used, for a process
        after this one: if one can't be used now, those that a process before kept are. Raises
        UsageError for what can't be used.
        """
        self._watcher = watcher
        self._path = path
        self._policy = tuple(policy)
        self._hooks = tuple(hooks)
        self._kept = keep_at
        self._registered: list[Registration] = []
        # Those of before as long as an event is judged by them: who runs them refers to them.
        self._running: weakref.WeakSet[Hooks] = weakref.WeakSet()
        self._seen: dict[str, object] = {}
        self.settings = config.Settings()
        try:
            self.load()
        except UsageError as error:
            self._load_kept(error)

    def attach(self, watcher: Registers) -> None:
        """Register with a watcher what was loaded before there was one."""
        self._watcher = watcher
        watcher.replace((), self._registered)

    @property
    def files(self) -> list[str]:
        """The files that were read last, whether or not they could be used."""
        return list(self._seen)

    @property
    def outdated(self) -> bool:
        """Has a file changed since it was read?"""
        return any(_identity(path) != identity for path, identity in self._seen.items())

    def load(self) -> None:
        """Read all files; what they say is in force when this returns.

        Raises UsageError; then nothing has changed.
        """
        self._seen = {}
        contents: dict[str, str] = {}

        def read(path: str) -> str:
            self._seen.setdefault(path, _identity(path))  # as it is before it is read
            contents[path] = tomlfile.read_trusted(path)
            return contents[path]

        self._use(read)
        if self._kept:
            kept.save(self._kept, contents)

    def _load_kept(self, why: UsageError) -> None:
        """Raises `why` where nothing was kept, or that can't be used either."""
        if not self._kept:
            raise why
        try:
            self._use(kept.load(self._kept), missing=True)
        except UsageError as error:
            log.debug("nor can what was kept be used: %s", error)
            raise why from None
        log.error("%s; until that is mended, what was last in force stays", why)

    def _use(self, reader: Reader, *, missing: bool = False) -> None:
        """`missing`: programs of hooks may be."""
        settings = config.load(self._path, reader) if self._path else config.Settings()
        policy = rules.load([*self._policy, *settings.policy], reader)
        hooks = Hooks([*self._hooks, *settings.hook], missing=missing)
        registered = [*policy.registrations(), *hooks.registrations()]
        if self._watcher:
            self._watcher.replace(self._registered, registered)
        self._registered, self.settings = registered, settings
        self._running.add(hooks)

    def close(self) -> None:
        """End the hooks that run. Safe to call twice."""
        for hooks in list(self._running):
            hooks.close()

    def __enter__(self) -> Active:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


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
        while (now := [_identity(path) for path in self._active.files]) != before and not self._closed:
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


def _identity(path: str) -> object:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
