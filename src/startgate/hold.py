"""A held task, and the one answer that it gets.

The keeper holds the task and keeps the time: whatever becomes of this process, its deadline answers.
A `Hold` is what a worker has of it: it says the answer, once, and is told if the deadline was faster.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from startgate.errors import NotReadable, StartgateError
from startgate.keeper.protocol import Held
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY

TIMEOUT_LIMIT = 3600
"""Seconds: the longest deadline that may be asked for."""

_MARGIN = 5_000_000
"""ns before its deadline from which on an answer is not tried: it would come too late, and we would
tell of it as if it had not."""
_LONGER = 2.0
"""Seconds by which `keep` puts a deadline off."""


def check_hold_timeout(seconds: float) -> None:
    """Raises ValueError for what is no `hold_timeout`."""
    if not 0 < seconds <= TIMEOUT_LIMIT:
        raise ValueError(f"hold_timeout is {seconds}: it must be in (0, {TIMEOUT_LIMIT}]")


class Released(StartgateError):
    """The hold was answered meanwhile: its fd is not to be used any more."""


class Holder(Protocol):
    """Who holds the task: a group that the keeper has."""

    def answer(self, number: int, response: int) -> None:
        """Let the task go (FAN_ALLOW), or fail its access with EPERM (FAN_DENY). Never waits or raises."""

    def flag(self, number: int, response: int) -> None:
        """Say what the deadline is to answer. Never waits or raises."""

    def extend(self, number: int, seconds: float) -> None:
        """Put the deadline off, once. Never waits or raises."""


class Hold:
    """One permission event that is owed an answer. Leaving it as a context manager releases it."""

    __slots__ = (
        "_answered",
        "_claimed",
        "_denies",
        "_due",
        "_fd",
        "_holder",
        "_kept",
        "_lock",
        "_users",
        "before_expiry",
        "denied",
        "expired",
        "id",
        "path",
        "pid",
        "since",
    )

    def __init__(self, holder: Holder, held: Held) -> None:
        """Takes the event's fd over."""
        self._holder = holder
        self.id = held.id
        self.pid = held.pid
        """Of who is held, in the initial pid namespace; 0: not known."""
        self.path = held.path
        """Of the file that is executed; empty where it is not known."""
        self.since = held.since
        """CLOCK_MONOTONIC in ns: when the event was read."""
        self._due = held.due
        self._fd = held.fd
        self._lock = threading.Lock()
        self._claimed = False  # somebody is about to answer
        self._kept = False
        self._answered = False
        self.denied = False
        """The answer is, or will be, EPERM."""
        self._denies = held.denies
        self.expired = False
        """The deadline gave the answer."""
        self._users = 0
        self.before_expiry: Callable[[], None] | None = None
        """Called when the deadline has answered; must not wait."""

    @classmethod
    def answered_before(cls, holder: Holder) -> Hold:
        """Return one that a worker before us answered: nothing is owed any more."""
        hold = cls(holder, Held(0, 0, 0))
        hold._claimed = hold._answered = True
        return hold

    @property
    def answered(self) -> bool:
        """Is the task free to go, or about to be?"""
        return self._claimed

    @property
    def held_us(self) -> int:
        """Microseconds since the event was read."""
        return (time.monotonic_ns() - self.since) // 1000

    @property
    def fail_closed(self) -> bool:
        """Somebody's verdict is owed: without it, deny."""
        return self._denies

    @fail_closed.setter
    def fail_closed(self, owed: bool) -> None:
        if owed != self._denies:
            self._denies = owed
            if not self._claimed:
                self._holder.flag(self.id, FAN_DENY if owed else FAN_ALLOW)

    def allow(self) -> bool:
        """Let the task go. False: it was answered before."""
        return self._claim() and self._answer(FAN_ALLOW)

    def deny(self, tell: Callable[[], None] | None = None) -> bool:
        """Fail the task's access with EPERM. False: it was answered before.

        `tell` is called right before the answer, which ends the container; it must not wait.
        """
        if not self._claim():
            return False
        self.denied = True
        try:
            if tell:
                tell()
        finally:
            self._answer(FAN_DENY)
        return True

    def release(self) -> bool:
        """Answer without a verdict: allow, unless one was owed. False: it was answered before."""
        return self.deny() if self.fail_closed else self.allow()

    def keep(self) -> bool:
        """Put the deadline off, once: what is left to do is short, and must be done before the answer.

        False: it was answered before, or nearly.
        """
        with self._lock:
            if self._claimed or self._is_late():
                return False
            if not self._kept:
                self._kept = True
                self._due += int(_LONGER * 1e9)
                self._holder.extend(self.id, _LONGER)
            return True

    def expire(self, denied: bool) -> None:
        """The deadline has answered: tell `before_expiry`, unless an answer of ours was on its way."""
        with self._lock:
            late, self._claimed = self._claimed, True
        if not late:
            self.expired = True
            self.denied = denied
            if self.before_expiry:
                self.before_expiry()
        self._end()

    def fd(self) -> AbstractContextManager[int]:
        """Lend the event's fd: its number stays this file's for the length of the block.

        Entering raises Released once the hold is answered, NotReadable where the file is not known.
        """
        return _Lent(self)

    def borrow(self) -> int:
        """Begin to use the fd: see `fd`. Raises Released, NotReadable."""
        with self._lock:
            if self._claimed:
                raise Released("the hold was answered")
            if self._fd < 0:
                raise NotReadable("the file of this event is not known")
            self._users += 1
            return self._fd

    def give_back(self) -> None:
        """End what `borrow` began."""
        with self._lock:
            self._users -= 1
            self._close_if_done()

    def _is_late(self) -> bool:
        return time.monotonic_ns() > self._due - _MARGIN

    def _claim(self) -> bool:
        with self._lock:
            if self._claimed or self._is_late():
                return False
            self._claimed = True
            return True

    def _answer(self, response: int) -> bool:
        self._end()  # first: an fd of ours into a root file system would keep it busy
        self._holder.answer(self.id, response)
        return True

    def _end(self) -> None:
        self.before_expiry = None  # and what it refers to
        with self._lock:
            self._answered = True
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._answered and not self._users and self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Lent:
    """An fd, lent. Not a generator: every held task pays for this, several times."""

    __slots__ = ("_hold",)

    def __init__(self, hold: Hold) -> None:
        self._hold = hold

    def __enter__(self) -> int:
        return self._hold.borrow()

    def __exit__(self, *error: object) -> None:
        self._hold.give_back()
