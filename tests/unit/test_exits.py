from __future__ import annotations

import os
import queue
import time
from functools import partial

from startgate import exits
from startgate.exits import Exits

PATIENCE = 10.0


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
