"""Callbacks of events that nobody is asked about: `TOLD_TYPES`.

Who tells of such an event never waits, so they are called on a thread of their own: in the events' order,
one at a time.
"""

from __future__ import annotations

import threading

from startgate.events import Event
from startgate.listeners import TOLD_TYPES, Listeners, Subscription

_GRACE = 1.0
"""Seconds for which the end waits for a callback that runs."""


class _Told(Subscription):
    """Takes those events only, and is woken for them only."""

    def put(self, event: Event, *, wake: bool = True) -> None:
        if event.type in TOLD_TYPES:
            super().put(event, wake=wake)

    def wake(self) -> None:
        if self._events or self._closed:
            super().wake()


class Telling:
    """Calls them from the first such callback on, until it is closed."""

    def __init__(self, listeners: Listeners, backlog: int) -> None:
        self._listeners = listeners
        self._backlog = backlog
        self._lock = threading.Lock()
        self._events: _Told | None = None
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Listen, if there is a callback to call. Safe to call again."""
        with self._lock:
            if self._events or not any(map(self._listeners.wants, TOLD_TYPES)):
                return
            self._events = events = _Told(self._backlog, self._listeners.forget)
            self._listeners.attach(events)
            self._thread = threading.Thread(
                target=self._run, args=(events,), name="startgate-telling", daemon=True
            )
            self._thread.start()

    def _run(self, events: Subscription) -> None:
        for event in events:
            self._listeners.call(event)  # what they return refuses nothing

    def close(self) -> None:
        """Call those of what was told until now. A callback that does not return is left behind."""
        with self._lock:
            events, thread = self._events, self._thread
        if events and thread:
            events.close()
            if thread is not threading.current_thread():
                thread.join(_GRACE)
