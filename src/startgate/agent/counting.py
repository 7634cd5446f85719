"""Tells from time to time how many runtimes were executed."""

from __future__ import annotations

import logging
import time

from startgate.counter import Counter
from startgate.events import Event, timestamp
from startgate.watcher import Watcher

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds."""


class Counting:
    """Publishes once a minute what BPF has counted, if that is another number than before."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._due = time.monotonic() + EVERY
        self._said: Counter | None = None

    @property
    def left(self) -> float:
        """Seconds until the next count."""
        return max(0.0, self._due - time.monotonic())

    def is_due(self) -> bool:
        """Is it time? Then publish it."""
        if self.left:
            return False
        self._due = time.monotonic() + EVERY
        self.publish()
        return True

    def publish(self) -> None:
        """Publish what is counted by now."""
        try:
            counted = self._watcher.counted()
        except OSError as error:
            log.error("the executions of runtimes can't be counted: %s", error)
            return
        if counted and counted != self._said:
            self._said = counted
            event = Event(type="counted", time=timestamp(), gate="none", container=None, counted=counted)
            self._watcher.publish(event)
