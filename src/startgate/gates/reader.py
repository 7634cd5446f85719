"""A thread that reads one fanotify group, and answers whatever nobody else will."""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job
from startgate.hold import Hold
from startgate.inherited.progress import Pulse
from startgate.kernel.fanotify import FAN_NOFD, Event, Group, scarce_from
from startgate.kernel.turnstile import Turnstile
from startgate.listeners import lost

log = logging.getLogger(__name__)

_PATIENCE = 1.0
_BREATH = 0.002
_BREATHS = 200


class Crew:
    """The readers of one group. Whoever reads an event also does its work, which may wait, as
    long as another of them stays to read on: handing over to a worker costs more than most work.
    """

    def __init__(self, *, in_turn: bool = False) -> None:
        """`in_turn`: events are read and decided on by one reader at a time, in their order."""
        self.turn: AbstractContextManager[object] = threading.Lock() if in_turn else nullcontext()
        self._lock = threading.Lock()
        self._reading = 0

    def join(self) -> None:
        """A reader is there, or is back."""
        with self._lock:
            self._reading += 1

    def leave(self) -> bool:
        """May a reader turn to work that may wait? False: no other would be left."""
        with self._lock:
            if self._reading < 2:
                return False
            self._reading -= 1
            return True


class Reader:
    """Calls `decide` with each event and its hold, on a thread of its own.

    `decide` must never wait. What it returns is done while the task is held: here, or on a
    worker when this is the last reader; when it returns None, or raises, the task is let go.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        context: Context,
        decide: Callable[[Event, Hold], Job | None],
        *,
        pulse: Pulse,
        crew: Crew | None = None,
        turnstile: Turnstile | None = None,
        again: Sequence[Event] = (),
    ) -> None:
        """`turnstile` reads the group in our place, and passes on what concerns us; it stays the
        caller's. `again` are events that another reader of the group took, which died.
        """
        self._name = name
        self._group = group
        self._inlet = turnstile or group
        self._context = context
        self._decide = decide
        self._crew = crew or Crew()
        self._crew.join()
        self._working = False
        self._closed = False
        self._pulse = pulse
        self._again = again
        self._scarce = scarce_from()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"startgate-{name}", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; events that wait unread stay with the group."""
        if self._thread.ident is None:
            os.close(self._stop)
            return
        self._closed = True
        os.eventfd_write(self._stop, 1)
        if not self._working:
            self._thread.join(_PATIENCE)

    def _run(self) -> None:
        with select.epoll() as poll:
            # Of several readers of a group, an event wakes one that waits (epoll_ctl(2)).
            poll.register(self._inlet, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            poll.register(self._stop, select.EPOLLIN)
            poll.register(self._pulse.ping, select.EPOLLIN | select.EPOLLET)
            for event in self._again:
                self._handle(event)
            while self._stop not in (ready := [fd for fd, _ in poll.poll()]):
                if self._inlet.fileno() in ready:
                    if self._inlet is self._group:  # the turnstile sees to it itself
                        self._await_fds()
                    self._read()
                self._pulse.turn()
        os.close(self._stop)

    def _await_fds(self) -> None:
        """Wait a moment while few fds are left: the kernel denies what is read without a free one."""
        for _ in range(_BREATHS):
            if self._has_fds():
                return
            time.sleep(_BREATH)

    def _has_fds(self) -> bool:
        try:
            lowest = os.dup(self._stop)
        except OSError:
            return False
        os.close(lowest)
        return lowest < self._scarce

    def _read(self) -> None:
        with self._crew.turn:
            if self._closed:
                return  # it took long to be our turn: the inlet's number may be another file's by now
            self._pulse.take(True)
            try:
                held = self._take()
            finally:
                self._pulse.take(False)
        if held:
            self._do(*held)

    def _take(self) -> tuple[Hold, Job] | None:
        try:
            event = self._inlet.read()
        except OSError as error:  # EMFILE: the kernel denied that access (fanotify_read())
            self._lost(f"an access was denied by the kernel, its event can't be read: {error}")
            return None
        return self._dispatch(event) if event else None

    def _handle(self, event: Event) -> None:
        with self._crew.turn:
            held = self._dispatch(event)
        if held:
            self._do(*held)

    def _dispatch(self, event: Event) -> tuple[Hold, Job] | None:
        if event.fd == FAN_NOFD:
            self._lost("the kernel's event queue overflowed: starts were let go unseen")
            return None
        if event.record is None:  # else the turnstile has counted it
            self._pulse.hold(event.fd)
        hold = Hold(self._group, event.fd, file=not event.again)
        try:
            if job := self._decide(event, hold):
                self._context.limit(hold)
                return hold, job
        except (NotReadable, OSError) as error:  # the task was killed, most likely
            self._log(logging.INFO, f"let go: {error}")
        except Exception as error:
            self._log(logging.ERROR, f"deciding on an event failed, it was let go: {error!r}")
        hold.allow()
        return None

    def _do(self, hold: Hold, job: Job) -> None:
        if not self._crew.leave():
            self._context.submit(hold, job)
            return
        self._working = True
        try:
            self._context.do(hold, job)
        except BaseException:
            log.exception("the work on a held task failed")
        finally:
            self._working = False
            self._crew.join()

    def _lost(self, message: str) -> None:
        self._context.listeners.publish(lost(f"{self._name}: {message}"))
        self._log(logging.ERROR, message)

    def _log(self, level: int, message: str) -> None:
        """Log on a worker: a handler may wait, for its lock or for whoever reads stderr."""
        self._context.housekeeping.submit(lambda: log.log(level, "%s: %s", self._name, message))
