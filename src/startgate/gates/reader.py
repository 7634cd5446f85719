"""A thread that reads one fanotify group, and answers whatever nobody else will."""

from __future__ import annotations

import logging
import os
import resource
import select
import threading
import time
from collections.abc import Callable, Sequence

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_NOFD, Event, Group
from startgate.listeners import lost
from startgate.progress import Pulse

log = logging.getLogger(__name__)

_PATIENCE = 1.0
_RESERVE = 12
_BREATH = 0.002
_BREATHS = 200


class Reader:
    """Calls `decide` with each event and its hold, on a thread of its own.

    `decide` must never wait. What it returns is done on a worker while the task is held;
    when it returns None, or raises, the task is let go at once.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        context: Context,
        decide: Callable[[Event, Hold], Job | None],
        *,
        pulse: Pulse,
        again: Sequence[Event] = (),
    ) -> None:
        """`again` are events that another reader of the group took, which died."""
        self._name = name
        self._group = group
        self._context = context
        self._decide = decide
        self._pulse = pulse
        self._again = again
        # From this number on few fds are left; workers need some, for files they look at.
        self._scarce = max(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVE)
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"startgate-{name}", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; events that wait unread stay with the group."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        if not self._thread.is_alive():  # else it is stuck in the kernel, and would poll another's fd
            os.close(self._stop)

    def _run(self) -> None:
        with select.epoll() as poll:
            # Of several readers of a group, an event wakes one that waits (epoll_ctl(2)).
            poll.register(self._group, select.EPOLLIN | select.EPOLLEXCLUSIVE)
            poll.register(self._stop, select.EPOLLIN)
            poll.register(self._pulse.ping, select.EPOLLIN | select.EPOLLET)
            for event in self._again:
                self._dispatch(event)
            while self._stop not in (ready := [fd for fd, _ in poll.poll()]):
                if self._group.fileno() in ready:
                    self._await_fds()
                    self._read()
                self._pulse.turn()

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
        try:
            event = self._group.read()
        except OSError as error:  # EMFILE: the kernel denied that access (fanotify_read())
            self._lost(f"an access was denied by the kernel, its event can't be read: {error}")
            return
        if event:
            self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        if event.fd == FAN_NOFD:
            self._lost("the kernel's event queue overflowed: starts were let go unseen")
            return
        self._pulse.hold(event.fd)
        hold = Hold(self._group, event.fd, file=not event.again)
        try:
            if job := self._decide(event, hold):
                self._context.submit(hold, job)
                return
        except (NotReadable, OSError) as error:  # the task was killed, most likely
            self._log(logging.INFO, f"let go: {error}")
        except Exception as error:
            self._log(logging.ERROR, f"deciding on an event failed, it was let go: {error!r}")
        hold.allow()

    def _lost(self, message: str) -> None:
        self._context.listeners.publish(lost(f"{self._name}: {message}"))
        self._log(logging.ERROR, message)

    def _log(self, level: int, message: str) -> None:
        """Log on a worker: a handler may wait, for its lock or for whoever reads stderr."""
        self._context.housekeeping.submit(lambda: log.log(level, "%s: %s", self._name, message))
