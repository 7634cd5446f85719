"""What the reading threads have done, as counters in memory that a supervisor can share.

A supervisor sees from them that the readers live, with no message to it: it looks only while
something is held or waits to be read. It asks by `ping`, which wakes each reader once.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from typing import NamedTuple

GROUPS = 2
"""The two fanotify groups: commands, and pid files with first programs."""

MARGIN = 64
"""Events may have been read of which the reader had not noted the number yet."""

_SIZE = 4096
_READERS = 32
# The words of the page: answers of each group, the highest event fd, then each reader's two.
_TOP = GROUPS
_FIRST = 8
_WORDS = 2 * _READERS


class Snapshot(NamedTuple):
    """The counters at one moment; they only grow."""

    turns: tuple[int, ...]
    """For each group: how often its readers came back from their wait, all together."""
    held: int
    """Permission events that were read, and are not answered."""
    answers: int


class Pulse:
    """One reader's counters: no other thread writes them."""

    def __init__(self, words: memoryview, at: int, ping: int) -> None:
        self._words = words
        self._at = at
        self.ping = ping
        """An eventfd, to be watched edge-triggered: each write to it is worth one `turn`."""

    def turn(self) -> None:
        """The reader has done what there was to do, and will wait again."""
        self._words[self._at] += 1

    @property
    def top(self) -> int:
        """The highest number that an event's fd had, in any group."""
        return self._words[_TOP]

    def hold(self, event_fd: int) -> None:
        """The reader took an event that is owed an answer."""
        self._words[self._at + 1] += 1
        self._words[_TOP] = max(self._words[_TOP], event_fd)


class Progress:
    """The counters of all readers, and the eventfd that they watch."""

    def __init__(self, page: int | None = None, ping: int | None = None) -> None:
        """`page`, a memfd, and `ping` are shared with another process; both are taken over."""
        self.page = page
        self.ping = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) if ping is None else ping
        self._memory = bytearray(_SIZE) if page is None else mmap.mmap(page, _SIZE)
        self._words = memoryview(self._memory).cast("Q")
        self._readers = [0] * GROUPS

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
        return Pulse(self._words, _FIRST + group * _WORDS + 2 * number, self.ping)

    def answered(self, group: int) -> Callable[[], None]:
        """Return what counts an answer; the caller sees to it that one thread at a time does."""
        words = self._words

        def count() -> None:
            words[group] += 1

        return count

    @property
    def top(self) -> int:
        """The highest number that an event's fd had."""
        return self._words[_TOP]

    def snapshot(self) -> Snapshot:
        """Return the counters as they are now."""
        words = self._words
        of_group = [range(_FIRST + g * _WORDS, _FIRST + (g + 1) * _WORDS, 2) for g in range(GROUPS)]
        answers = sum(words[:GROUPS])  # first: an answer is never counted before its hold
        holds = sum(words[at + 1] for group in of_group for at in group)
        turns = tuple(sum(words[at] for at in group) for group in of_group)
        return Snapshot(turns, max(0, holds - answers), answers)

    def reset(self) -> None:
        """Begin anew for the next worker; `top` stays."""
        for at in [*range(GROUPS), *range(_FIRST, len(self._words))]:
            self._words[at] = 0

    def close(self) -> None:
        """Close the fds. The counters stay: a reader that is stuck in the kernel may still come back."""
        os.close(self.ping)
        if self.page is not None:
            os.close(self.page)
