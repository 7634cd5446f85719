"""Gates that were passed while nobody was there to see: who runs by then is told late."""

from __future__ import annotations

import threading
from typing import Protocol

from startgate.events import Reason
from startgate.lifecycle import Entry, Lifecycle

_REASON = Reason("its gate was passed unseen: no worker was there in time")


class LookFor(Protocol):
    """Tells late of the containers that run, for as long as it takes: see `Created.look_for`."""

    def __call__(self, *entries: Entry, reason: Reason | None = None) -> None:
        """May wait."""


class Gaps:
    """Looks after the containers that were being created. One thread does it for all gaps: where there are
    many of them, workers are short."""

    def __init__(self, lifecycle: Lifecycle, look_for: LookFor) -> None:
        self._lifecycle = lifecycle
        self._look_for = look_for
        self._lock = threading.Lock()
        self._doubted: list[Entry] = []
        self._at_work = False

    def catch_up(self) -> None:
        """On a worker: there was a gap. Returns at once where another thread is at work."""
        with self._lock:
            self._doubted += self._lifecycle.doubt()
            if self._at_work:
                return
            self._at_work = True
        try:
            while entries := self._next():
                self._look_for(*entries, reason=_REASON)
        except BaseException:
            with self._lock:
                self._at_work = False
            raise

    def _next(self) -> list[Entry]:
        with self._lock:
            entries, self._doubted = self._doubted, []
            self._at_work = bool(entries)  # under the lock: who comes after the last look begins anew
            return entries
