"""Who is told of events: callbacks, while the container is held, and subscriptions, after."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from startgate.current import held_by
from startgate.events import EVENT_TYPES, Event, EventType, Note, Reason, timestamp
from startgate.events import Deny as Deny
from startgate.hold import Hold
from startgate.policy.patch import Patch

log = logging.getLogger(__name__)

__all__ = [
    "TOLD_TYPES",
    "Callback",
    "Decision",
    "Deny",
    "Listeners",
    "Registration",
    "Subscription",
    "lost",
]

TOLD_TYPES: tuple[EventType, ...] = (
    "existing",
    "exec_ended",
    "paused",
    "resumed",
    "oom",
    "denied",
    "lost",
    "counted",
)
"""The types of events that nobody is asked about: their callbacks are called after, by `Telling`."""


Callback = Callable[[Event], object]
"""Returns None, or a Deny, Note or Patch, or a list of these; anything else says nothing."""


class Registration(NamedTuple):
    """A callback, and for which type of event it is called."""

    event_type: EventType
    callback: Callback
    fail_closed: bool = False
    """Refuse the start if the callback raises, or has not returned by the deadline."""
    actual: bool = False
    """Does it ask for `container.actual`, which is read for those who do?"""


@dataclass(frozen=True, slots=True)
class Decision:
    """What all callbacks of an event said."""

    deny: Deny | None = None
    notes: tuple[Note, ...] = ()
    patches: tuple[Patch, ...] = ()


_NOTHING = Decision()


class Subscription:
    """A bounded queue of events, iterated by one consumer. It never makes anyone wait.

    A consumer that is more than `backlog` events behind misses some: it then gets one
    `lost` event that says how many.
    """

    number = 0
    """How many of its events its consumer has printed: it counts them."""

    def __init__(self, backlog: int, forget: Callable[[Subscription], None]) -> None:
        self._backlog = backlog
        self._events: deque[Event] = deque()
        self._lock = threading.RLock()  # for those who put: a signal handler may, too
        # Not a Condition: what a signal handler raises inside its wait() may find its lock free.
        self._asleep = threading.Lock()
        self._asleep.acquire()
        self._dropped = 0
        self._closed = False
        self._forget = forget

    def put(self, event: Event, *, wake: bool = True) -> None:
        """Queue an event, or drop it when the consumer is too far behind. Never waits. Without `wake`
        the consumer comes for it later: `wake`."""
        with self._lock:
            self._add(event)
        if wake:
            self.wake()

    def _add(self, event: Event) -> None:
        if len(self._events) >= self._backlog:
            self._dropped += 1
            return
        if self._dropped:
            self._events.append(self._loss())
        self._events.append(event)

    def wake(self) -> None:
        """Let the consumer come for what was put."""
        with suppress(RuntimeError):  # it is not asleep, or somebody else woke it
            self._asleep.release()

    def get(self, timeout: float | None = None) -> Event | None:
        """Return the next event; None at the end, or after `timeout` seconds.

        It keeps no lock: a signal handler that interrupts it may wait for one who puts.
        """
        until = math.inf if timeout is None else time.monotonic() + timeout
        while True:
            closed = self._closed  # before the look: what was put by then is seen
            if event := self._next():
                return event
            if closed:
                self.wake()  # whoever else waits
                return None
            left = until - time.monotonic()
            if left <= 0:
                return None
            self._asleep.acquire(timeout=-1 if timeout is None else min(left, threading.TIMEOUT_MAX))

    def _next(self) -> Event | None:
        """Take the next event, or what tells of a gap; None: there is none yet."""
        try:
            event = self._events.popleft()
        except IndexError:
            return self._loss() if self._dropped else None
        if self._events:
            self.wake()  # of several consumers one may still be asleep
        return event

    def _loss(self) -> Event:
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return lost(f"{dropped} events were dropped: the listener is too slow")

    def __iter__(self) -> Iterator[Event]:
        while (event := self.get()) is not None:
            yield event

    @property
    def closed(self) -> bool:
        """Does nothing come any more, but what is queued?"""
        return self._closed

    def close(self) -> None:
        """End the iteration after what is queued."""
        self._forget(self)
        self._closed = True
        self.wake()


def lost(message: str, missed: int | None = None) -> Event:
    """Return the event that says honestly what was not seen; `missed`: how many tasks went on so."""
    return Event(
        type="lost", time=timestamp(), gate="none", container=None, reason=Reason(message), missed=missed
    )


class Listeners:
    """The callbacks and subscriptions of a watcher. Any thread may use it."""

    def __init__(self) -> None:
        self._callbacks: dict[EventType, tuple[Registration, ...]] = {}
        self._subscriptions: tuple[Subscription, ...] = ()
        self._lock = threading.Lock()
        self.actual = False
        """Is `container.actual` to be read, whoever asks?"""

    @property
    def want_actual(self) -> bool:
        """Does anybody ask for `container.actual`?"""
        return self.actual or any(each.actual for found in self._callbacks.values() for each in found)

    def on(self, event_type: EventType, callback: Callback, *, fail_closed: bool = False) -> None:
        """Register a callback. Raises ValueError for a type that has none."""
        self.replace((), [Registration(event_type, callback, fail_closed)])

    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None:
        """Drop callbacks, and register others after those that stay: at once for all types.

        Raises ValueError for a type that has none.
        """
        old, new = list(old), list(new)
        for registration in new:
            if registration.event_type not in EVENT_TYPES:
                raise ValueError(f"no callbacks for {registration.event_type!r}: {', '.join(EVENT_TYPES)}")
        with self._lock:
            kept = [r for registered in self._callbacks.values() for r in registered if r not in old]
            self._callbacks = {
                kind: found
                for kind in EVENT_TYPES
                if (found := tuple(r for r in [*kept, *new] if r.event_type == kind))
            }

    def wants(self, event_type: EventType) -> bool:
        """Is there a callback for this type?"""
        return event_type in self._callbacks

    def fails_closed(self, event_type: EventType) -> bool:
        """Is there a callback for this type whose verdict must be waited for?"""
        return any(registration.fail_closed for registration in self._callbacks.get(event_type, ()))

    def subscribe(self, backlog: int) -> Subscription:
        """Return a new subscription to all events from now on."""
        subscription = Subscription(backlog, self.forget)
        with self._lock:
            self._subscriptions += (subscription,)
        return subscription

    def attach(self, subscription: Subscription) -> None:
        """Give all events from now on to a subscription of another kind, too."""
        with self._lock:
            self._subscriptions += (subscription,)

    def forget(self, subscription: Subscription) -> None:
        """Give it no more events."""
        with self._lock:
            self._subscriptions = tuple(s for s in self._subscriptions if s is not subscription)

    def call(self, event: Event, owed: Callable[[bool], object] = bool, hold: Hold | None = None) -> Decision:
        """Run the callbacks of the event's type, in order; the first Deny ends it.

        `owed` is told before each whether a verdict that must be waited for is ahead. A
        callback that raises is logged; it refuses if it is to fail closed. `hold` is what they keep waiting.
        """
        registered = self._callbacks.get(event.type)
        if not registered:
            owed(False)
            return _NOTHING
        said: list[object] = []
        last = max((i for i, it in enumerate(registered) if it.fail_closed), default=-1)
        for index, registration in enumerate(registered):
            owed(index <= last)
            said += _call(registration, event, hold)
            if any(isinstance(word, Deny) for word in said):
                break
        else:
            owed(False)
        return Decision(
            deny=next((word for word in said if isinstance(word, Deny)), None),
            notes=tuple(word for word in said if isinstance(word, Note)),
            patches=tuple(word for word in said if isinstance(word, Patch)),
        )

    def publish(self, event: Event, *, wake: bool = True) -> None:
        """Give the event to all subscriptions. Never waits. Without `wake` they are told later: `wake`."""
        for subscription in self._subscriptions:
            subscription.put(event, wake=False)
        if wake:
            self.wake()

    def wake(self) -> None:
        """Let the subscriptions' consumers come for what was published."""
        for subscription in self._subscriptions:
            subscription.wake()


def _call(registration: Registration, event: Event, hold: Hold | None) -> list[object]:
    """Return what a callback says."""
    try:
        with held_by(hold):
            said = registration.callback(event)
    except BaseException as error:  # sys.exit() too: it is the callback's thread that is ours
        log.exception("a callback for %r failed", event.type)
        return [Deny(f"a callback failed: {error!r}")] if registration.fail_closed else []
    return list(said) if isinstance(said, (list, tuple)) else [said]
