"""Which containers get a tracer, and what becomes of a container whose tracer is not ready."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypedDict, Unpack

from startgate.callbacks import registration
from startgate.current import current_hold
from startgate.errors import StartgateError
from startgate.events import Container, Deny, Event
from startgate.listeners import Registration
from startgate.tracing.command import Words
from startgate.tracing.ready import ReadyWhen
from startgate.tracing.tracer import Tell, Told, Tracer

log = logging.getLogger(__name__)

LIMIT = 256
"""Tracers that run at the same time."""
_MARGIN = 0.05
"""Seconds before the deadline at which a tracer is not waited for any more: so it is us who say why."""


class _Registers(Protocol):
    def replace(self, old: Iterable[Registration], new: Iterable[Registration]) -> None: ...


def _logged(told: Told) -> None:
    level = logging.WARNING if told.kind == "failed" else logging.INFO
    log.log(level, "container %s: %s: %s", told.container.id, told.kind, told.text)


class TracerOptions(TypedDict, total=False):
    """The options of `Tracers`, for those who pass them on."""

    match: str | None
    ready: str | None
    ready_timeout: float
    require: bool
    existing: bool
    grace: float
    tell: Tell


class Tracers:
    """Starts a tracer for each container that is created, and ends it with the container.

    ::

        watcher = Watcher()
        with Tracers(["strace", "-f", "-p", "{pid}", "-o", "{id}.txt"]) as tracers:
            tracers.register(watcher)
            with watcher: ...
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        match: str | None = None,
        ready: str | None = None,
        ready_timeout: float = math.inf,
        require: bool = False,
        existing: bool = False,
        grace: float = 5.0,
        tell: Tell = _logged,
    ) -> None:
        """`command` may hold placeholders: docs/trace.md. `match` is a CEL expression.

        `ready`: ``ptrace``, ``fd``, ``exec``, or a regular expression; None: what is usual for the program.
        The container waits for it, for at most `ready_timeout` seconds, and no longer than its deadline: then
        it goes on, or is denied with `require`. `existing`: trace what runs already, too. `grace`:
        seconds between SIGTERM and SIGKILL. `tell` is called on several threads. Raises UsageError.
        """
        self._command = Words(command)
        self._ready = ReadyWhen.parse(ready, self._command.programs)
        self._match = match
        self._patience, self._require, self._existing, self._grace = ready_timeout, require, existing, grace
        self._tell = tell
        self._lock = threading.Lock()
        self._tracers: set[Tracer] = set()
        self._count = 0
        self._closed = False
        self._registrations = self._register_for()

    def register(self, watcher: _Registers) -> None:
        """Have the watcher's containers traced."""
        watcher.replace((), self._registrations)

    def unregister(self, watcher: _Registers) -> None:
        """Have no further containers traced."""
        watcher.replace(self._registrations, ())

    def close(self) -> None:
        """End all tracers; start no more. Safe to call twice."""
        with self._lock:
            self._closed, tracers = True, list(self._tracers)
        for tracer in tracers:
            tracer.end()
        until = time.monotonic() + self._grace + 1
        for tracer in tracers:
            tracer.join(max(0.0, until - time.monotonic()))

    def __enter__(self) -> Tracers:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _register_for(self) -> list[Registration]:
        found = [registration("created", self._created, fail_closed=self._require, match=self._match)]
        if self._existing:
            found.append(registration("existing", self._runs_already, match=self._match))
        return found

    def _created(self, event: Event) -> Deny | None:
        """The callback: the container waits for its tracer."""
        failure = self._trace(event, self._ready.impossible(event))
        return Deny(f"tracer {self._command.programs[0]}: {failure}") if failure and self._require else None

    def _runs_already(self, event: Event) -> None:
        self._trace(event, "")

    def _trace(self, event: Event, unheld: str | None) -> str | None:
        """Start a tracer, and wait until it is ready. `unheld` says why there is no use in waiting.

        Return why it was not ready in time.
        """
        if event.container is None:
            return None
        try:
            tracer = self._start(event.container, waited_for=unheld is None)
        except (StartgateError, OSError) as error:
            return self._failed(event.container, f"it can't be started: {_sentence(error)}")
        failure = unheld
        if failure is None:
            failure = tracer.wait(min(self._patience, current_hold().remaining - _MARGIN))
        if failure and self._require:
            tracer.end()
        return self._failed(event.container, failure) if failure else None

    def _start(self, container: Container, waited_for: bool) -> Tracer:
        """Raises StartgateError, OSError."""
        words = self._command.of(container)
        with self._counted():
            tracer = Tracer(
                container,
                words,
                self._ready,
                grace=self._grace,
                waited_for=waited_for,
                tell=self._tell,
                ended=self._ended,
            )
        with self._lock:
            if not tracer.over:
                self._tracers.add(tracer)
            closed = self._closed
        if closed:
            tracer.end()
        return tracer

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """One more, for as long as the tracer runs that is started in the block. Raises StartgateError."""
        with self._lock:
            if self._closed:
                raise StartgateError("startgate is about to end")
            if self._count >= LIMIT:
                raise StartgateError(f"{LIMIT} tracers run already")
            self._count += 1
        try:
            yield
        except BaseException:
            with self._lock:
                self._count -= 1
            raise

    def _ended(self, tracer: Tracer) -> None:
        with self._lock:
            tracer.over = True
            self._tracers.discard(tracer)
            self._count -= 1

    def _failed(self, container: Container, why: str) -> str:
        then = "the container is refused" if self._require else "the container goes on"
        self._tell(Told(container, "failed", f"{why}: {then}"))
        return why


def _sentence(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


@contextmanager
def trace(watcher: _Registers, command: Sequence[str], **options: Unpack[TracerOptions]) -> Iterator[Tracers]:
    """For the length of the block, trace the watcher's containers. The options are those of `Tracers`."""
    with Tracers(command, **options) as tracers:
        tracers.register(watcher)
        try:
            yield tracers
        finally:
            tracers.unregister(watcher)
