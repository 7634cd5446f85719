"""A thread that reads one fanotify group, and answers whatever nobody else will."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job
from startgate.hold import Hold
from startgate.kernel.fanotify import FAN_NOFD, Event, Group
from startgate.listeners import lost

log = logging.getLogger(__name__)


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
    ) -> None:
        self._name = name
        self._group = group
        self._context = context
        self._decide = decide
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name=f"startgate-{name}", daemon=True)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def close(self) -> None:
        """End the thread; events that wait unread stay with the group."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        os.close(self._stop)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._group, select.POLLIN)
        poll.register(self._stop, select.POLLIN)
        while True:
            ready = poll.poll()
            if any(fd == self._stop for fd, _ in ready):
                return
            try:
                event = self._group.read()
            except OSError as error:  # EMFILE: the kernel denied that access (fanotify_read())
                self._lost(f"an access was denied by the kernel, its event can't be read: {error}")
                continue
            if event:
                self._dispatch(event)

    def _dispatch(self, event: Event) -> None:
        if event.fd == FAN_NOFD:
            self._lost("the kernel's event queue overflowed: starts were let go unseen")
            return
        hold = Hold(self._group, event.fd)
        try:
            if job := self._decide(event, hold):
                self._context.submit(hold, job)
                return
        except (NotReadable, OSError) as error:
            log.debug("%s: let go: %s", self._name, error)
        except Exception:
            log.exception("%s: deciding on an event failed: let go", self._name)
        hold.allow()

    def _lost(self, message: str) -> None:
        log.error("%s: %s", self._name, message)
        self._context.listeners.publish(lost(f"{self._name}: {message}"))
