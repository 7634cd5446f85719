"""The supervisor's view of the fanotify groups: what waits, and letting it go."""

from __future__ import annotations

import os
from contextlib import suppress

from startgate.agent.handover import Handover
from startgate.inherited.progress import MARGIN, Progress, Snapshot
from startgate.kernel.fanotify import FAN_ALLOW, FAN_NOFD, Group


class Groups:
    """Owns the supervisor's copies of the groups, and of the counters of those who read them."""

    def __init__(self, handover: Handover) -> None:
        """Takes over the fds."""
        self._progress = Progress(*(handover.fds[name] for name in ("progress", "ping", "alert")))
        self.groups = [Group(fd=handover.fds[name]) for name in ("commands", "containers")]

    def unread(self) -> int:
        """Return how many events wait to be read."""
        return sum(group.unread() for group in self.groups)

    def is_quiet(self) -> bool:
        """Is nothing held, nor unread? If so, whoever takes an event from now on alerts us."""
        self._progress.rest(True)  # before we look: who takes one right now sees it, or we see that
        if not self.unread() and not self.seen().held:
            return True
        self._progress.rest(False)
        return False

    def ping(self) -> None:
        """Ask each reading thread for a move."""
        os.eventfd_write(self._progress.ping, 1)

    def seen(self) -> Snapshot:
        """Return what the reading threads have done so far."""
        return self._progress.snapshot()

    def forget_reader(self) -> None:
        """The worker is dead: count anew for the next one."""
        self._progress.reset()

    def release(self) -> None:
        """Let go what a dead worker had read and not answered.

        The kernel knows an event by the number of its fd alone, whoever read it: answer all
        numbers. One that is not pending gives ENOENT, and harms nobody.
        """
        for group in self.groups:
            for number in range(self._progress.top + MARGIN):
                _allow(group, number)

    def drain(self) -> None:
        """Let go what waits unread."""
        for group in self.groups:
            while (fd := _read(group)) is not None:
                if fd != FAN_NOFD:
                    _allow(group, fd)
                    os.close(fd)


def _read(group: Group) -> int | None:
    try:
        event = group.read()
    except OSError:  # that one was denied by the kernel; the next waits
        return FAN_NOFD
    return event.fd if event else None


def _allow(group: Group, number: int) -> None:
    with suppress(OSError):  # ENOENT
        group.answer(number, FAN_ALLOW)
