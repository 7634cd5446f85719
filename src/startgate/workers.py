"""Threads for all that may wait. The reading threads hand over and go on reading.

Not concurrent.futures: its threads are joined at exit, and a callback that never
returns would keep the process.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], None]


class Workers:
    """At most `limit` daemon threads, started when needed; `spare` of them stay when idle."""

    def __init__(self, limit: int = 128, spare: int = 8) -> None:
        self._limit = limit
        self._spare = spare
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._backlog = 0
        self._closed = False

    def submit(self, job: Job) -> None:
        """Run `job` soon, on some thread. Never waits; after `close` nothing is run."""
        with self._lock:
            if self._closed:
                return
            self._jobs.put(job)
            if self._idle:
                self._idle -= 1
            elif self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._run, name="startgate-worker", daemon=True).start()
            else:
                self._backlog += 1

    def close(self) -> None:
        """Let idle threads end; those that are stuck in a job are left behind."""
        with self._lock:
            self._closed = True
            idle = self._threads
        for _ in range(idle):
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:
                log.exception("a worker's job failed")
            del job
            if not self._stay():
                break

    def _stay(self) -> bool:
        with self._lock:
            if self._closed:
                return False
            if self._backlog:
                self._backlog -= 1
                return True
            if self._idle >= self._spare:
                self._threads -= 1
                return False
            self._idle += 1
            return True
