"""How many fds we may have, and what may be made of them."""

from __future__ import annotations

import os
import resource
import threading
from contextlib import AbstractContextManager, nullcontext

from startgate.lifecycle import STARTING_LIMIT


def raise_fd_limit() -> None:
    """Each held task costs an fd, and when none is left the kernel denies accesses."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


_OF_A_JOB = 8
"""Work on a held task opens fewer fds than that at a time."""
_PLENTY = 256
_PATIENCE = 1.0
"""Seconds: then a job goes on all the same; it may be what another waits for."""


def room_for_jobs() -> AbstractContextManager[object]:
    """Return what a job enters: where fds are short, only so many are at work as there are fds for.

    The others' tasks stay held meanwhile, by the keeper. It may be entered by many threads.
    """
    left = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(os.listdir("/proc/self/fd"))
    return nullcontext() if left > _OF_A_JOB * _PLENTY else _Room(max(1, left // _OF_A_JOB))


class _Room(AbstractContextManager[object]):
    def __init__(self, jobs: int) -> None:
        self._free = threading.Semaphore(jobs)
        self._entered = threading.local()

    def __enter__(self) -> None:
        self._entered.place = self._free.acquire(timeout=_PATIENCE)

    def __exit__(self, *error: object) -> None:
        if self._entered.place:
            self._free.release()


def starting_limit() -> int:
    """A container that is being created costs up to three fds; most are for the holds."""
    return min(STARTING_LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
