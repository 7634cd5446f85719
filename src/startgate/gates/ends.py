"""The end of a container, and of a start that came to nothing: `stopped`, exactly once."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from startgate.events import Exit, Reason
from startgate.gates.context import Context, event
from startgate.kernel import pidfd
from startgate.lifecycle import End, Entry

log = logging.getLogger(__name__)

_SIGKILL = 9


class Ends:
    """Tells of ends, and drops what was armed for the container."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def ended(self, entry: Entry, end: End) -> None:
        """On any thread, never waits: the container's init, or its start, has ended."""
        if self._context.lifecycle.stopped(entry, end):
            denied = entry.command and entry.command.denied  # no `stopped` follows a `denied` command
            self._context.housekeeping.submit(lambda: self._drop(entry) if denied else self._tell(entry, end))

    def forget(self, entry: Entry) -> None:
        """On a worker: drop a start that was denied, or whose caller is gone."""
        if self._context.lifecycle.stopped(entry, End(None)):
            self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self.disarm(entry)
        self._context.notes.drop(entry)

    def _tell(self, entry: Entry, end: End) -> None:
        self.disarm(entry)
        unstarted = not entry.passed and entry.command  # of one that was there before, nobody knows
        message = end.message or ("it ended before its program was started" if unstarted else None)
        stopped = replace(
            event("stopped", "none", entry.container),
            exit=self._exit(entry, end),
            reason=Reason(message) if message else None,
        )
        self._context.listeners.publish(stopped)
        self._context.notes.drop(entry)
        if self._context.listeners.wants("stopped"):
            self._context.workers.submit(lambda: self._context.listeners.call(stopped))

    def disarm(self, entry: Entry) -> None:
        """On a worker: take back what waits for the container."""
        self._context.pid_files.remove(entry)
        self._context.programs.remove(entry)
        for watch in (entry.runtime_watch, entry.init_watch):
            if watch:
                self._context.exits.unwatch(watch)

    def _exit(self, entry: Entry, end: End) -> Exit:
        requested = entry.requested_signal
        if end.status is None or end.message:
            return Exit(requested_signal=requested)
        code, signal = pidfd.decode_wait_status(end.status)
        oom: bool | None = False  # the OOM killer kills by SIGKILL only: another end was not its work
        if signal == _SIGKILL:
            oom = self._context.exits.was_oom_victim(entry.init_watch) if entry.init_watch else None
        return Exit(code, signal, oom, requested)
