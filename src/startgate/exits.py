"""Tells the end of processes: one thread, one epoll, one pidfd for each.

The wait status comes from the first that knows it: the zombie's /proc/PID/stat (its
start time proves that it is still that process), PIDFD_GET_INFO once it is reaped (Linux
6.15), or a BPF map that a program on sched_process_exit fills.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from startgate.errors import NotReadable
from startgate.kernel import pidfd
from startgate.kernel.process import Proc, ProcessId

log = logging.getLogger(__name__)

Ended = Callable[[int | None], None]
"""Called on the exits' thread with the wait status, None where unknown. Must not wait."""


@dataclass(eq=False, frozen=True, slots=True)
class Watch:
    """A process that is watched; the token for `Exits.unwatch`."""

    process: ProcessId
    fd: int
    ended: Ended


class ExitMemory(Protocol):
    """Remembers the wait statuses of processes that were asked for before they ended."""

    def expect(self, pid: int) -> None:
        """Remember the status of `pid`, when it ends."""

    def take(self, pid: int) -> int | None:
        """Return the wait status and forget the process; None: not known."""


class Exits:
    """Watches processes for their end. It owns the pidfds given to it."""

    def __init__(self, proc: Proc, memory: ExitMemory | None = None) -> None:
        self._proc = proc
        self._memory = memory
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._lock = threading.Lock()
        self._watched: dict[int, Watch] = {}
        self._others: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run, name="startgate-exits", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, process: ProcessId, fd: int, ended: Ended) -> Watch:
        """Call `ended` once the process of the pidfd `fd` has ended; takes the fd over.

        Raises OSError: ENOSPC, when this user watches too many fds (epoll(7)).
        """
        watch = Watch(process, fd, ended)
        self._expect(process.pid)
        with self._lock:
            try:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
            except OSError:
                os.close(fd)
                raise
            self._watched[fd] = watch
        return watch

    def _expect(self, pid: int) -> None:
        try:
            if self._memory:
                self._memory.expect(pid)
        except OSError as error:
            log.warning("the exit status of %d may not be known: %s", pid, error)

    def unwatch(self, watch: Watch) -> None:
        """Forget a process that is watched, and close its pidfd. Nothing if it has ended."""
        with self._lock:
            if self._watched.get(watch.fd) is not watch:
                return
            del self._watched[watch.fd]
            self._epoll.unregister(watch.fd)
            os.close(watch.fd)
        if self._memory:
            self._memory.take(watch.process.pid)

    def also(self, fd: int, readable: Callable[[], None]) -> None:
        """Call `readable` on this thread whenever `fd`, which stays the caller's, is readable."""
        self._others[fd] = readable
        self._epoll.register(fd, select.EPOLLIN)

    def close(self) -> None:
        """End the thread and close all pidfds."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._stop:
                    return
                try:
                    self._on_ready(fd)
                except Exception:
                    log.exception("following the end of a process failed")

    def _on_ready(self, fd: int) -> None:
        if readable := self._others.get(fd):
            readable()
            return
        with self._lock:
            if fd not in self._watched:
                return
            if not _is_readable(fd):  # the number was reused after epoll_wait(2) returned
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
                return
            watch = self._watched.pop(fd)
        try:
            status = self._wait_status(watch.process, fd)
        finally:
            os.close(fd)
        watch.ended(status)

    def _wait_status(self, process: ProcessId, fd: int) -> int | None:
        remembered = self._memory.take(process.pid) if self._memory else None
        status = self._zombie_status(process)
        if status is None:
            status = pidfd.wait_status(fd)
        return remembered if status is None else status

    def _zombie_status(self, process: ProcessId) -> int | None:
        """Read the status of a process that nobody has reaped yet."""
        try:
            stat = self._proc.stat(process.pid)
        except NotReadable:
            return None
        return stat.exit_code if stat.state == "Z" and stat.start_time == process.start_time else None


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
