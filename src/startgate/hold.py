"""A held task, and the one answer that it gets.

A `Hold` owns a permission event and its fd. However its life goes (a worker answers, the
deadline passes, the watcher closes), exactly one answer is written. `Deadlines` is the
thread that sees to it when nobody else does.
"""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from types import TracebackType

from startgate.errors import NotReadable, StartgateError
from startgate.kernel.fanotify import FAN_ALLOW, FAN_DENY, Group

TIMEOUT_LIMIT = 3600
"""Seconds: the longest deadline that may be asked for."""


class Released(StartgateError):
    """The hold was answered meanwhile: its fd is not to be used any more."""


class Hold:
    """One permission event that is owed an answer. Leaving it as a context manager releases it."""

    __slots__ = (
        "_answered",
        "_claimed",
        "_fd",
        "_file",
        "_group",
        "_kept",
        "_lock",
        "_users",
        "before_expiry",
        "denied",
        "expired",
        "fail_closed",
        "since",
    )

    def __init__(self, group: Group, fd: int, *, file: bool = True) -> None:
        """Takes the event's fd over. Not a `file`: it only keeps the event's number from being
        used again, because the process that read the event died."""
        self._group = group
        self._fd = fd
        self._file = file
        self._lock = threading.Lock()
        self._claimed = False  # somebody is about to answer
        self._kept = False
        self._answered = False
        self.denied = False
        """The answer is, or will be, EPERM."""
        self.fail_closed = False
        """Somebody's verdict is owed: without it, deny."""
        self.expired = False
        """The deadline gave the answer."""
        self._users = 0
        self.since = time.monotonic_ns()
        self.before_expiry: Callable[[], None] | None = None
        """Called by the deadline's thread right before it answers; must not wait."""

    @classmethod
    def answered_before(cls, group: Group) -> Hold:
        """Return one that a process before us answered: nothing is owed any more."""
        hold = cls(group, -1, file=False)
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

        False: it was answered before.
        """
        with self._lock:
            self._kept = not self._claimed
            return self._kept

    def expire(self) -> None:
        """Answer because the task's time is up, and tell `before_expiry` if so.

        Not the first time after `keep`: then it is not `answered`, and to be called again.
        """
        if not self._claim(expiring=True):
            return
        self.expired = True
        self.denied = self.fail_closed
        try:
            if self.before_expiry:
                self.before_expiry()
        finally:
            self._answer(FAN_DENY if self.denied else FAN_ALLOW)

    def fd(self) -> AbstractContextManager[int]:
        """Lend the event's fd: its number stays this file's for the length of the block.

        Entering raises Released once the hold is answered, NotReadable where the file is not known.
        """
        return _Lent(self)

    def borrow(self) -> int:
        """Begin to use the fd: see `fd`. Raises Released, NotReadable."""
        if not self._file:
            raise NotReadable("the file of this event is not known: who read it has died")
        with self._lock:
            if self._claimed:
                raise Released("the hold was answered")
            self._users += 1
            return self._fd

    def give_back(self) -> None:
        """End what `borrow` began."""
        with self._lock:
            self._users -= 1
            self._close_if_done()

    def _claim(self, *, expiring: bool = False) -> bool:
        with self._lock:
            if expiring and self._kept:
                self._kept = False
                return False
            if self._claimed:
                return False
            self._claimed = True
            return True

    def _answer(self, response: int) -> bool:
        with suppress(OSError):  # ENOENT: the task was killed; EBADF: the group is closed
            self._group.answer(self._fd, response)
        self.before_expiry = None  # and what it refers to: holds are kept until their deadline
        with self._lock:
            self._answered = True
            self._close_if_done()
        return True

    def _close_if_done(self) -> None:
        """Close after the answer only: the kernel matches answers by the fd's number."""
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


_LONGER = 2.0
"""Seconds that a hold is kept beyond its deadline: a disk may hang in the middle of a rename."""


class Deadlines:
    """Answers each hold that was given to it when its time is up, if it is still held.

    Its thread sleeps until the earliest deadline, and for ever when there is none. It logs nothing:
    a log handler may wait.
    """

    def __init__(self, report: Callable[[Exception], object] = lambda error: None) -> None:
        """`report` is told where telling of a deadline failed; it must not wait."""
        self._report = report
        self._changed = threading.Condition()
        self._heap: list[tuple[int, int, Hold]] = []
        self._order = itertools.count()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="startgate-deadlines", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, hold: Hold, timeout: float) -> None:
        """Let `hold` expire `timeout` seconds from its start, unless it is answered before."""
        self._add(hold, hold.since + int(timeout * 1e9))

    def _add(self, hold: Hold, due: int) -> None:
        with self._changed:
            if self._closed:
                hold.allow()
                return
            heapq.heappush(self._heap, (due, next(self._order), hold))
            if self._heap[0][2] is hold:
                self._changed.notify()

    def close(self) -> None:
        """Allow everything that is still held, and end the thread."""
        with self._changed:
            self._closed = True
            left = [hold for _, _, hold in self._heap]
            self._heap.clear()
            self._changed.notify()
        for hold in left:
            hold.allow()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (hold := self._next()) is not None:
            try:
                hold.expire()
            except Exception as error:
                self._report(error)
            if not hold.answered:
                self._add(hold, time.monotonic_ns() + int(_LONGER * 1e9))

    def _next(self) -> Hold | None:
        with self._changed:
            while not self._closed:
                while self._heap and self._heap[0][2].answered:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._changed.wait()
                    continue
                left = self._heap[0][0] - time.monotonic_ns()
                if left <= 0:
                    return heapq.heappop(self._heap)[2]
                self._changed.wait(left / 1e9)
        return None
