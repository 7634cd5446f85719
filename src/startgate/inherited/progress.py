"""What the reading threads have done, as counters in memory that a supervisor can share.

A supervisor sees from them that the readers live: it looks only while something is held or waits
to be read, and rests otherwise. It asks by `ping`, which wakes each reader once. While it rests,
whoever takes an event writes to `alert`: the group itself would not wake it, for a reader that is
faster leaves nothing there to see (epoll(7) looks again before it tells).
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

from startgate.kernel.turnstile import Watched

GROUPS = 2
"""The two fanotify groups: commands, and pid files with first programs."""

MOVERS = GROUPS + 1
"""Those whose turns are counted apart: the readers of each group, and the turnstile."""

MARGIN = 64
"""Events may have been read of which the reader had not noted the number yet."""

_SIZE = 4096
_READERS = 32
# The words of the page: answers of each group, the highest event fd, the turnstile's (its turns, its
# holds, its highest event fd, whether the supervisor rests, how many containers are not settled: `struct
# counters` of native/turnstile.c), then each reader's: turns, holds, whether it takes an event right now.
_TOP = GROUPS
_TURNSTILE = 3
_TURNSTILE_HOLDS = _TURNSTILE + 1
_TURNSTILE_TOP = _TURNSTILE + 2
_RESTING = _TURNSTILE + 3
_UNSETTLED = _TURNSTILE + 4
_FIRST = 8
_EACH = 3
_WORDS = _EACH * _READERS


def _eventfd() -> int:
    return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


class Snapshot(NamedTuple):
    """The counters at one moment; they only grow."""

    turns: tuple[int, ...]
    """How often those came back from their wait who must: the readers of each group, all together, and
    the turnstile (where there is none, the readers of the first group in its place)."""
    held: int
    """Permission events that were read, or are being read, and are not answered."""
    answers: int


class Pulse:
    """One reader's counters: no other thread writes them."""

    def __init__(self, words: memoryview, at: int, ping: int, alert: int) -> None:
        self._words = words
        self._at = at
        self._alert = alert
        self.ping = ping
        """An eventfd, to be watched edge-triggered: each write to it is worth one `turn`."""

    def turn(self) -> None:
        """The reader has done what there was to do, and will wait again."""
        self._words[self._at] += 1

    @property
    def top(self) -> int:
        """The highest number that an event's fd had which a reader took, in any group."""
        return self._words[_TOP]

    def take(self, taking: bool) -> None:
        """The reader is about to take an event, or has counted what it took: read(2) opens the event's
        file, and may wait for its file system."""
        self._words[self._at + 2] = taking
        if taking and self._words[_RESTING]:
            os.eventfd_write(self._alert, 1)

    def hold(self, event_fd: int) -> None:
        """The reader took an event that is owed an answer."""
        self._words[self._at + 1] += 1
        self._words[_TOP] = max(self._words[_TOP], event_fd)


class Progress:
    """The counters of all readers, and the eventfds that wake them, and the supervisor."""

    def __init__(self, page: int | None = None, ping: int | None = None, alert: int | None = None) -> None:
        """`page`, a memfd, and the eventfds are shared with another process; all are taken over."""
        self.page = page
        self.ping = _eventfd() if ping is None else ping
        self.alert = _eventfd() if alert is None else alert
        self._memory = bytearray(_SIZE) if page is None else mmap.mmap(page, _SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._readers = [0] * GROUPS
        self._lock = threading.Lock()

    @classmethod
    def shared(cls) -> Progress:
        """Return new ones, in memory that other processes can share."""
        page = os.memfd_create("startgate-progress")
        os.ftruncate(page, _SIZE)
        return cls(page)

    def reader(self, group: int) -> Pulse:
        """Return the counters of a further reader of a group."""
        number = self._readers[group]
        if number >= _READERS:
            raise ValueError("too many readers")
        self._readers[group] += 1
        return Pulse(self._words, _FIRST + group * _WORDS + _EACH * number, self.ping, self.alert)

    def turnstile(self) -> Watched:
        """Return what the turnstile needs of this."""
        return Watched(self._words[_TURNSTILE:_FIRST], self.ping, self.alert)

    def unsettled(self) -> Callable[[int], None]:
        """Return what tells for how many containers of a `Lifecycle` a `start` or a `delete` may have
        to be held; the turnstile sees the sum of all."""
        own = 0

        def tell(containers: int) -> None:
            nonlocal own
            with self._lock:
                self._words[_UNSETTLED] += containers - own
                own = containers

        return tell

    def rest(self, resting: bool) -> None:
        """The supervisor wants to be alerted of the next hold, or needs it no more."""
        self._words[_RESTING] = resting

    def answered(self, group: int) -> Callable[[], None]:
        """Return what counts an answer; the caller sees to it that one thread at a time does."""
        words = self._words

        def count() -> None:
            words[group] += 1

        return count

    @property
    def top(self) -> int:
        """The highest number that an event's fd had."""
        return max(self._words[_TOP], self._words[_TURNSTILE_TOP])

    def snapshot(self) -> Snapshot:
        """Return the counters as they are now."""
        words = self._words
        of_group = [range(_FIRST + g * _WORDS, _FIRST + (g + 1) * _WORDS, _EACH) for g in range(GROUPS)]
        answers = sum(words[:GROUPS])  # first: an answer is never counted before its hold
        holds = words[_TURNSTILE_HOLDS] + sum(
            words[at + 1] + words[at + 2] for group in of_group for at in group
        )
        turns = [sum(words[at] for at in group) for group in of_group]
        return Snapshot((*turns, words[_TURNSTILE] or turns[0]), max(0, holds - answers), answers)

    def reset(self) -> None:
        """Begin anew for the next worker; `top` stays."""
        for at in range(len(self._words)):
            if at not in (_TOP, _TURNSTILE_TOP):
                self._words[at] = 0

    def close(self) -> None:
        """Close the fds. The counters stay: a reader that is stuck in the kernel may still come back."""
        os.close(self.ping)
        os.close(self.alert)
        if self.page is not None:
            os.close(self.page)
