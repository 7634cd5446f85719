"""Starts whose command went on before they were told: nobody was asked, so nobody waits for words."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msgspec.structs import replace

from startgate.events import Event, Reason
from startgate.gates.context import Context, event
from startgate.hold import Hold
from startgate.lifecycle import End, Entry

_AT_ONCE = 2
"""Starts: when more come at a time all wait for Python's lock, and who goes on early gains nothing."""
_PATIENCE = 10.0
"""Seconds that a later gate waits for it: a file of the bundle may be on a disk that hangs."""


def lateness(hold: Hold) -> Reason:
    """Return why an event tells of a task whose answer was not ours: its deadline was faster."""
    answer = "denied" if hold.denied else "allowed"
    return Reason(f"the deadline of {hold.held_us / 1e6:.1f} s passed before this was done: {answer}")


class _Telling:
    """A start that is not told of yet."""

    __slots__ = ("begun", "done")

    def __init__(self) -> None:
        self.begun = False
        self.done = threading.Event()


class Untold:
    """Tells each of these starts once, and lets later gates wait for it. Any thread may use it."""

    def __init__(self, context: Context, ended: Callable[[Entry, End], object]) -> None:
        """`ended` is told of an end that came before its start was told."""
        self._context = context
        self._ended = ended
        self._lock = threading.Lock()
        self._open: dict[Entry, _Telling] = {}

    @property
    def has_room(self) -> bool:
        """Are few enough untold yet for a further one?"""
        return len(self._open) < _AT_ONCE

    def add(self, entry: Entry) -> None:
        """The start is about to be let go."""
        with self._lock:
            self._open[entry] = _Telling()

    def drop(self, entry: Entry) -> None:
        """It was not let go after all."""
        with self._lock:
            telling = self._open.pop(entry, None)
        if telling:
            telling.done.set()

    def tell(self, entry: Entry, creating: Event) -> bool:
        """Publish its `creating`. False: that was done before."""
        with self._lock:
            telling = self._open.get(entry)
            if telling is None or telling.begun:
                return False
            telling.begun = True
        try:
            self._context.listeners.publish(creating)
            end = self._context.lifecycle.told(entry)
        finally:
            self.drop(entry)
        if end:
            self._ended(entry, end)
        return True

    def wait(self, entry: Entry) -> None:
        """On a worker: let the start be told first; what took too long is told as it is known."""
        telling = self._open.get(entry)
        if telling and not telling.done.wait(_PATIENCE):
            reason = Reason(f"its files could not be read in {_PATIENCE:.0f} s")
            self.tell(entry, replace(event("creating", "command", entry.container), reason=reason))
