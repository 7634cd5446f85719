"""What concerns one container happens in the order in which it was asked for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Queues:
    """A queue for each key. Keys that nobody waits for cost nothing."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, deque[object]] = {}

    @contextmanager
    def of(self, key: str) -> Iterator[None]:
        """Wait until all who came before, with the same key, have left their block."""
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, deque())
            queue.append(ticket)
            self._changed.wait_for(lambda: queue[0] is ticket)
        try:
            yield
        finally:
            with self._changed:
                queue.popleft()
                if not queue:
                    del self._queues[key]
                self._changed.notify_all()
