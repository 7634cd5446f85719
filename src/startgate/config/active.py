"""The rules and hooks in force: registered with a watcher, and exchanged while it runs."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Iterable, Sequence
from typing import Protocol

from startgate.config import kept, settings, tomlfile
from startgate.config.tomlfile import Reader
from startgate.errors import UsageError
from startgate.hooks import HookConfig, Hooks
from startgate.listeners import Registration
from startgate.policy import rules

log = logging.getLogger(__name__)


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
        self.settings = settings.Settings()
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
        return any(identity_of(path) != identity for path, identity in self._seen.items())

    def load(self) -> None:
        """Read all files; what they say is in force when this returns.

        Raises UsageError; then nothing has changed.
        """
        self._seen = {}
        contents: dict[str, str] = {}

        def read(path: str) -> str:
            self._seen.setdefault(path, identity_of(path))  # as it is before it is read
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
        given = settings.load(self._path, reader) if self._path else settings.Settings()
        policy = rules.load([*self._policy, *given.policy], reader)
        for rule in policy.rules:
            if rule.warning:
                log.warning("%s", rule.warning)
        hooks = Hooks([*self._hooks, *given.hook], missing=missing)
        registered = [*policy.registrations(), *hooks.registrations()]
        if self._watcher:
            self._watcher.replace(self._registered, registered)
        self._registered, self.settings = registered, given
        self._running.add(hooks)

    def close(self) -> None:
        """End the hooks that run. Safe to call twice."""
        for hooks in list(self._running):
            hooks.close()

    def __enter__(self) -> Active:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def identity_of(path: str) -> object:
    """Return what changes when a file does; None while there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size
