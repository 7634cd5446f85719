from __future__ import annotations

import os
import queue
import time
from functools import partial

from startgate import exits
from startgate.exits import Exits, OomKill
from startgate.kernel.process import ProcessFacts

PATIENCE = 10.0


class Kills:
    """The ring of what the OOM killer ended."""

    def __init__(self) -> None:
        self.waiting: list[OomKill] = []
        self.closed = False
        self._fd = os.eventfd(0)

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[OomKill]:
        told, self.waiting = self.waiting, []
        return told

    def close(self) -> None:
        self.closed = True
        os.close(self._fd)


def test_a_victim_is_told_before_its_end() -> None:
    """Though its ring is not readable yet: the kernel wakes readers a moment later."""
    following, kills, done = Exits(), Kills(), queue.SimpleQueue[str]()
    ended = os.eventfd(0)
    following.kills(kills, lambda kill: done.put(f"killed {kill.comm}"))
    following.also(ended, lambda: done.put(f"ended {os.eventfd_read(ended)}"))
    following.start()
    kills.waiting.append(OomKill(7, ProcessFacts(1, {}, "/c", 2), (), "tail"))
    os.eventfd_write(ended, 1)
    assert [done.get(timeout=PATIENCE) for _ in range(2)] == ["killed tail", "ended 1"]
    following.close()
    os.close(ended)
    assert kills.closed


def test_what_is_done_later() -> None:
    """In order, not before its time, and while nothing else happens."""
    following, done = Exits(), queue.SimpleQueue[tuple[str, float]]()
    ready = os.eventfd(1, os.EFD_NONBLOCK)

    def tell(name: str) -> None:
        done.put((name, time.monotonic()))

    def begin() -> None:
        os.eventfd_read(ready)
        following.later(lambda: 1 / 0)  # and the thread goes on
        for name in ("one", "two"):
            following.later(partial(tell, name))

    following.also(ready, begin)
    began = time.monotonic()
    following.start()
    told = [done.get(timeout=PATIENCE) for _ in range(2)]
    following.close()
    os.close(ready)
    assert [name for name, _ in told] == ["one", "two"]
    assert all(when - began >= exits.DELAY for _, when in told)
