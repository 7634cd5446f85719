"""Threads for all that may wait. The reading threads hand over and go on reading.

Not concurrent.futures: its threads are joined at exit, and a callback that never
returns would keep the process.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger(__name__)

Job = Callable[[], object]


class Workers:
    """At most `limit` daemon threads; when all are busy, jobs wait for one.

    A worker that takes a job sees to it that another one is idle. So whoever submits never
    starts a thread: that waits until the new thread runs.
    """

    def __init__(self, limit: int = 128, spare: int = 8) -> None:
        """`spare` threads stay when they are idle."""
        self._limit = limit
        self._spare = max(1, spare)  # somebody has to wait for jobs
        self._jobs: deque[Job] = deque()
        self._lock = threading.RLock()
        # Not a SimpleQueue: each item wakes two of those who wait for one, the second for nothing.
        self._changed = threading.Condition(self._lock)
        self._threads = 0
        self._idle = 0
        self._closed = False

    def start(self) -> None:
        """Start the first thread."""
        self._add_thread()

    def submit(self, job: Job) -> None:
        """Run `job` soon, on some thread. Never waits; after `close` nothing is run."""
        with self._lock:
            self._jobs.append(job)
            self._changed.notify()

    @property
    def closed(self) -> bool:
        """Was it closed: should a job that takes long come to its end?"""
        return self._closed

    def close(self) -> None:
        """Let idle threads end; those that are stuck in a job are left behind."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _add_thread(self) -> None:
        with self._lock:
            if self._idle or self._threads >= self._limit or self._closed:
                return
            self._threads += 1
            self._idle += 1
        try:
            threading.Thread(target=self._run, name="startgate-worker", daemon=True).start()
        except RuntimeError as error:  # no memory, or RLIMIT_NPROC
            log.error("no further worker thread: %s", error)
            with self._lock:
                self._threads -= 1
                self._idle -= 1

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._add_thread()
            self._do(job)
            del job
            if not self._stay():
                return

    def _next(self) -> Job | None:
        """Wait for a job; None at the end."""
        with self._lock:
            self._changed.wait_for(lambda: self._jobs or self._closed)
            self._idle -= 1
            return None if self._closed else self._jobs.popleft()

    def _do(self, job: Job) -> None:
        if self._closed:
            return
        try:
            job()
        except BaseException:
            log.exception("a worker's job failed")

    def _stay(self) -> bool:
        with self._lock:
            if self._closed or self._idle >= self._spare:
                self._threads -= 1
                return False
            self._idle += 1
            return True
