"""Who is told of events: callbacks, while the container is held, and subscriptions, after."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from startgate.events import Event, EventType, Reason, timestamp

log = logging.getLogger(__name__)

CALLBACK_TYPES: tuple[EventType, ...] = ("creating", "created", "started", "exec", "stopped")
"""The types of events that callbacks may be registered for; the others are iterated only."""


@dataclass(frozen=True, slots=True)
class Deny:
    """What a callback returns to refuse a start; the engine's user sees a permission error."""

    message: str
    rule: str | None = None


Callback = Callable[[Event], object]


class Subscription:
    """A bounded queue of events, iterated by one consumer. It never makes anyone wait.

    A consumer that is more than `backlog` events behind misses some: it then gets one
    `lost` event that says how many.
    """

    def __init__(self, backlog: int, forget: Callable[[Subscription], None]) -> None:
        self._backlog = backlog
        self._queue: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._dropped = 0
        self._forget = forget

    def put(self, event: Event) -> None:
        """Queue an event, or drop it when the consumer is too far behind. Never waits."""
        if self._queue.qsize() >= self._backlog:
            with self._lock:
                self._dropped += 1
            return
        if loss := self._loss():
            self._queue.put(loss)
        self._queue.put(event)

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None at the end, or after `timeout` seconds."""
        try:
            event = self._queue.get_nowait()
        except queue.Empty:
            if loss := self._loss():
                return loss
            try:
                event = self._queue.get(timeout=timeout)
            except queue.Empty:
                return None
        if event is None:
            self._queue.put(None)  # the end stays the end, for every reader
            return self._loss()
        return event

    def _loss(self) -> Event | None:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return lost(f"{dropped} events were dropped: the listener is too slow") if dropped else None

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._forget(self)
        self._queue.put(None)


def lost(message: str) -> Event:
    """Return the event that says honestly what was not seen."""
    return Event(type="lost", time=timestamp(), gate="none", container=None, reason=Reason(message))


class Listeners:
    """The callbacks and subscriptions of a watcher. Any thread may use it."""

    def __init__(self) -> None:
        self._callbacks: dict[EventType, tuple[Callback, ...]] = {}
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()

    def on(self, event_type: EventType, callback: Callback) -> None:
        """Register a callback. Raises ValueError for a type that has none."""
        if event_type not in CALLBACK_TYPES:
            raise ValueError(f"no callbacks for {event_type!r}: {', '.join(CALLBACK_TYPES)}")
        with self._lock:
            self._callbacks[event_type] = (*self._callbacks.get(event_type, ()), callback)

    def wants(self, event_type: EventType) -> bool:
        """Is there a callback for this type?"""
        return event_type in self._callbacks

    def subscribe(self, backlog: int) -> Subscription:
        """Return a new subscription to all events from now on."""
        subscription = Subscription(backlog, self._forget)
        with self._lock:
            self._subscriptions += (subscription,)
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Give all events from now on to a subscription of another kind, too."""
        with self._lock:
            self._subscriptions += (subscription,)

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def call(self, event: Event) -> Deny | None:
        """Run the callbacks of the event's type, in order; the first Deny ends it.

        A callback that raises is logged and counts as no objection.
        """
        for callback in self._callbacks.get(event.type, ()):
            try:
                verdict = callback(event)
            except BaseException:  # sys.exit() too: it is the callback's thread that is ours
                log.exception("a callback for %r failed", event.type)
                continue
            if isinstance(verdict, Deny):
                return verdict
        return None

    def publish(self, event: Event) -> None:
        """Give the event to all subscriptions. Never waits."""
        for subscription in self._subscriptions:
            subscription.put(event)
