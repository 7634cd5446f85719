"""The end of a container, and of a start that came to nothing: `stopped`, exactly once."""

from __future__ import annotations

import logging
import threading
import time

from msgspec.structs import replace

from startgate.events import Exit, Reason
from startgate.gates.context import Context, event
from startgate.kernel import pidfd
from startgate.kernel.process import ProcessId, boot_seconds
from startgate.lifecycle import End, Entry, Key
from startgate.listeners import lost

log = logging.getLogger(__name__)

_SIGKILL = 9
_SETTLING, _LOOK = 0.25, 0.002
"""Seconds: how long an end is waited for, and how often it is looked whether there is one."""


class Ends:
    """Tells of ends, and drops what was armed for the container."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._changed = threading.Condition()
        self._telling: list[Entry] = []

    def ended(self, entry: Entry, end: End) -> None:
        """On any thread, never waits: the container's init, or its start, has ended."""
        with self._changed:
            stopped = self._context.lifecycle.stopped(entry, end)
            if stopped:
                self._telling.append(entry)
        if stopped:
            denied = entry.command and entry.command.denied  # no `stopped` follows a `denied` command
            self._context.housekeeping.submit(lambda: self._finish(entry, None if denied else end))

    def _finish(self, entry: Entry, end: End | None) -> None:
        try:
            if end:
                self._tell(entry, end)
            else:
                self._drop(entry)
        finally:
            with self._changed:
                self._telling.remove(entry)
                self._changed.notify_all()

    def settle(self, key: Key) -> None:
        """On a worker: let the end of what has this key be told, if it is over, before another of that id
        begins. Nobody waits long: how it ended may not be known."""
        until = time.monotonic() + _SETTLING
        with self._changed:
            while self._is_ending(key) and (left := until - time.monotonic()) > 0:
                self._changed.wait(min(left, _LOOK))

    def _is_ending(self, key: Key) -> bool:
        if any(entry.key == key for entry in self._telling):
            return True
        return any(
            entry.told and not self._context.proc.is_alive(_last(entry))
            for entry in self._context.lifecycle.of(key)
        )

    def forget(self, entry: Entry) -> None:
        """On a worker: drop a start that was denied, or whose caller is gone."""
        if self._context.lifecycle.stopped(entry, End(None)):
            self._drop(entry)

    def kill(self, entry: Entry) -> bool:
        """End the init of a container that was refused. Never waits."""
        if not entry.init_watch:
            return False
        process, proc = entry.init_watch.process, self._context.proc
        try:
            pidfd.kill(process.pid, lambda: proc.is_alive(process))
        except ProcessLookupError:
            return True  # it is gone already
        except OSError as error:
            message = f"container {entry.container.id} was refused, and could not be killed: {error.strerror}"
            self._context.listeners.publish(lost(message))
            return False
        return True

    def _drop(self, entry: Entry) -> None:
        self.disarm(entry)
        self._context.notes.drop(entry)

    def _tell(self, entry: Entry, end: End) -> None:
        message = end.message or self._unstarted(entry)
        self.disarm(entry)
        stopped = replace(
            event("stopped", "none", entry.container),
            exit=self._exit(entry, end),
            reason=Reason(message) if message else None,
        )
        self._context.listeners.publish(stopped)
        self._context.notes.drop(entry)
        if self._context.listeners.wants("stopped"):
            self._context.workers.submit(lambda: self._context.listeners.call(stopped))

    def _unstarted(self, entry: Entry) -> str | None:
        """Return what is said of one that no gate saw starting. Of one that was there before nobody knows.

        A mark that stands yet is no proof that its program never ran: an event can be missed.
        """
        if entry.passed or not entry.command:
            return None
        return "it ended, and nobody saw its program start"

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
        return Exit(code, signal, oom, requested, _lived(entry))


def _lived(entry: Entry) -> float | None:
    if not entry.init_watch:
        return None
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    return round(max(0.0, now - boot_seconds(entry.init_watch.process)), 2)  # clock ticks


def _last(entry: Entry) -> ProcessId:
    """Return the process that is there as long as the container, or its start, is."""
    return entry.init_watch.process if entry.init_watch else entry.runtime
