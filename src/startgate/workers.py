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
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._closed = False

    def start(self) -> None:
        """Start the first thread."""
        self._add_thread()

    def submit(self, job: Job) -> None:
        """Run `job` soon, on some thread. Never waits; after `close` nothing is run."""
        self._jobs.put(job)

    @property
    def closed(self) -> bool:
        """Was it closed: should a job that takes long come to its end?"""
        return self._closed

    def close(self) -> None:
        """Let idle threads end; those that are stuck in a job are left behind."""
        with self._lock:
            self._closed = True
            threads = self._threads
        for _ in range(threads):
            self._jobs.put(None)

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
        while (job := self._jobs.get()) is not None:
            with self._lock:
                self._idle -= 1
            self._add_thread()
            self._do(job)
            del job
            if not self._stay():
                return

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
