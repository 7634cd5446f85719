"""How callbacks are registered: about which events they are asked, and how long they are waited for."""

from __future__ import annotations

import contextvars
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar, overload

from startgate.events import Deny, Event, EventType, Note
from startgate.listeners import Callback, Registration

if TYPE_CHECKING:
    from startgate.filters import Filter

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[[Event], object])

_STUCK = 128
"""Runs of one callback that nobody waits for any more; then it is not called before one of them returns."""


class Callbacks:
    """What registers callbacks: `Watcher`, and its asyncio twin."""

    @overload
    def on(
        self,
        event_type: EventType,
        *,
        fail_closed: bool = False,
        match: str | None = None,
        timeout: float | None = None,
    ) -> Callable[[F], F]: ...
    @overload
    def on(
        self,
        event_type: EventType,
        callback: F,
        *,
        fail_closed: bool = False,
        match: str | None = None,
        timeout: float | None = None,
    ) -> F: ...
    def on(self, event_type: EventType, callback: F | None = None, **options: Any) -> F | Callable[[F], F]:
        """Register a callback for one type of event; also usable as a decorator.

        For `creating`, `created`, `started` and `exec` it runs while the task is held, and
        may return a `Deny`, a `Note`, at `creating` a `Patch`, or a list of these. With
        `fail_closed` the start is refused if the callback raises, or has not returned by
        the deadline. A callback for `started` makes each container's first exec held.

        `match` is a CEL expression: it is called for events that match. `timeout`: after so many
        seconds it is not waited for, and the start goes on, or is refused with `fail_closed`.
        Raises ValueError for a type that is none, UsageError where `match` does not compile.
        """
        if callback is None:
            return lambda function: self.on(event_type, function, **options)
        adapted = self._adapt(callback, options.get("timeout"))
        self.replace((), [registration(event_type, adapted, **options)])
        return callback

    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None:
        """Drop callbacks and register others in one step, as when a configuration is reloaded."""
        raise NotImplementedError

    def _adapt(self, callback: Callback, timeout: float | None) -> Callback:
        return callback


def registration(
    event_type: EventType,
    callback: Callback,
    *,
    fail_closed: bool = False,
    match: str | None = None,
    timeout: float | None = None,
) -> Registration:
    """Return what `on` registers. Raises UsageError where `match` does not compile, ValueError."""
    asks = False
    if timeout is not None:
        callback = _Limited(callback, timeout, fail_closed)
    if match is not None:
        from startgate.filters import compile_filter  # noqa: PLC0415  (the library of an extra)

        matches = compile_filter(match)
        callback, asks = _Matching(matches, callback), matches.asks_for_actual
    return Registration(event_type, callback, fail_closed, asks)


class _Matching:
    """A callback that is asked about some events only."""

    def __init__(self, matches: Filter, callback: Callback) -> None:
        self._matches = matches
        self._callback = callback

    def __call__(self, event: Event) -> object:
        return self._callback(event) if self._matches(event) else None


class _Limited:
    """A callback that is waited for for a time. A thread can't be ended: it runs on then, unheard."""

    def __init__(self, callback: Callback, seconds: float, fail_closed: bool) -> None:
        """Raises ValueError."""
        if not 0 < seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"timeout is {seconds}: it must be more than 0")
        self._callback = callback
        self._seconds = seconds
        self._fail_closed = fail_closed
        self._free = threading.BoundedSemaphore(_STUCK)

    def __call__(self, event: Event) -> object:
        if not self._free.acquire(blocking=False):
            return self._given_up(event, f"{_STUCK} runs of a callback have not returned: it was not called")
        run = _Run(self._callback, event, self._free.release)
        if not run.done.wait(self._seconds):
            return self._given_up(event, f"a callback had not returned after {self._seconds:g} s")
        return run.result()

    def _given_up(self, event: Event, message: str) -> Deny | Note:
        log.warning("%s: %s", event.type, message)
        return Deny(message) if self._fail_closed else Note(message, action="error")


class _Run:
    """One run of a callback, on a thread of its own."""

    def __init__(self, callback: Callback, event: Event, ended: Callable[[], object]) -> None:
        self.done = threading.Event()
        self._said: object = None
        self._error: BaseException | None = None
        self._ended = ended
        context = contextvars.copy_context()  # `current_hold`
        threading.Thread(
            target=lambda: context.run(self._run, callback, event), name="startgate-callback", daemon=True
        ).start()

    def _run(self, callback: Callback, event: Event) -> None:
        try:
            self._said = callback(event)
        except BaseException as error:
            self._error = error
        finally:
            self._ended()
            self.done.set()

    def result(self) -> object:
        """Return what it said, or raise what it raised."""
        if self._error:
            raise self._error
        return self._said
