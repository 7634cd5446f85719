"""The usual way: a pidfd for each process, in one epoll.

The wait status comes from the first that knows it: the BPF program on sched_process_exit, the
zombie's /proc/PID/stat (its start time proves that it is still that process), or PIDFD_GET_INFO
once it is reaped (Linux 6.15).
"""

from __future__ import annotations

import logging
import os
import select

from startgate.errors import NotReadable
from startgate.exits.following import Ended, ExitMemory, Exits, Watch
from startgate.kernel import pidfd
from startgate.kernel.process import Proc, ProcessId

log = logging.getLogger(__name__)


class PidfdExits(Exits):
    """Follows processes by pidfds, which it owns."""

    def __init__(self, proc: Proc, memory: ExitMemory | None = None) -> None:
        super().__init__()
        self._proc = proc
        self._memory = memory
        self._watched: dict[int, Watch] = {}

    def watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        """See Exits. OSError may be ENOSPC, too many watched fds (epoll(7)), or EMFILE."""
        try:
            fd = pidfd.open_process(process.pid)
        except ProcessLookupError as error:
            raise NotReadable(f"process {process.pid} is gone") from error
        try:
            if self._proc.identify(process.pid) != process:  # the pid was reused before
                raise NotReadable(f"process {process.pid} is gone")
            self._expect(process.pid)
            watch = Watch(process, fd, ended, patient)
            with self._lock:
                self._epoll.register(fd, select.EPOLLIN | select.EPOLLONESHOT)
                self._watched[fd] = watch
        except BaseException:
            os.close(fd)
            raise
        return watch

    def _expect(self, pid: int) -> None:
        try:
            if self._memory:
                self._memory.expect(pid)
        except OSError as error:
            log.warning("the exit status of %d may not be known: %s", pid, error)

    def _forget(self, watch: Watch) -> bool:
        with self._lock:
            if self._watched.get(watch.fd) is not watch:
                return False
            del self._watched[watch.fd]
            self._epoll.unregister(watch.fd)
            os.close(watch.fd)
        if self._memory:
            self._memory.take(watch.process.pid)
        return True

    def was_oom_victim(self, watch: Watch) -> bool | None:
        """See Exits."""
        return self._memory.was_oom_victim(watch.process.pid) if self._memory else None

    def close(self) -> None:
        """End the thread and close all pidfds."""
        super().close()
        for fd in self._watched:
            os.close(fd)
        self._watched.clear()

    def _on_ready(self, fd: int) -> None:
        if fd in self._readable:
            super()._on_ready(fd)
            return
        with self._lock:  # nobody closes the fd meanwhile
            watch = self._watched.get(fd)
            if watch is None:
                return
            if not _is_readable(fd):  # the number was reused after epoll_wait(2) returned
                self._epoll.modify(fd, select.EPOLLIN | select.EPOLLONESHOT)
                return
            status = self._wait_status(watch)
        self._on_end(watch, status)

    def gone(self, process: ProcessId) -> int | None:
        """See Exits."""
        status = self._memory.take(process.pid) if self._memory else None
        return self._zombie_status(process) if status is None else status

    def _wait_status(self, watch: Watch) -> int | None:
        status = self._memory.peek(watch.process.pid) if self._memory else None
        if status is None:
            status = self._zombie_status(watch.process)
        return pidfd.wait_status(watch.fd) if status is None else status

    def _zombie_status(self, process: ProcessId) -> int | None:
        """Read the status of a process that nobody has reaped yet.

        Linux 5.10 shows the first thread's, which differs if other threads outlived it.
        """
        try:
            stat = self._proc.stat(process.pid)
        except NotReadable:
            return None
        return stat.exit_code if stat.state == "Z" and stat.start_time == process.start_time else None


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
