"""Tells the end of processes, on one thread that sleeps until there is one.

`PidfdExits` is the usual way: a pidfd for each process, in one epoll. The wait status
comes from the first that knows it: the BPF program on sched_process_exit, the zombie's
/proc/PID/stat (its start time proves that it is still that process), or PIDFD_GET_INFO once
it is reaped (Linux 6.15). `RingExits` serves in a child pid namespace, where the host's
processes have no pid of ours and so no pidfd: there the BPF program tells the end itself.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from startgate.errors import KernelUnsupported, NotReadable
from startgate.kernel import features, pidfd
from startgate.kernel.process import Proc, ProcessId

log = logging.getLogger(__name__)

DELAY = 0.01
"""Seconds that `Exits.later` waits."""

Ended = Callable[[int | None], None]
"""Called on the exits' thread with the wait status, None where unknown. Must not wait."""


@dataclass(eq=False, frozen=True, slots=True)
class Watch:
    """A process that is watched; the token for `unwatch`. `fd` is its pidfd, or -1."""

    process: ProcessId
    fd: int
    ended: Ended


class ExitMemory(Protocol):
    """Remembers the wait statuses of processes that were asked for before they ended."""

    def expect(self, pid: int) -> None:
        """Remember the status of `pid`, when it ends. Raises OSError when it is full."""

    def take(self, pid: int) -> int | None:
        """Return the wait status, None where not known; forget it once taken as often as expected."""

    def was_oom_victim(self, pid: int) -> bool:
        """Did the kernel's OOM killer choose this process, which was expected and has ended?"""

    def ends(self) -> EndRing:
        """Return the stream of their ends. The caller closes it."""


class EndRing(Protocol):
    """A stream of ends of processes that are expected."""

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""

    def read(self) -> list[tuple[int, int]]:
        """Return (pid, wait status) of those that ended since the last call."""

    def close(self) -> None:
        """Stop reading."""


class Exits:
    """The thread, and its epoll; subclasses know how to follow a process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._lock = threading.Lock()
        self._readable: dict[int, Callable[[], None]] = {}
        self._later: deque[tuple[float, Callable[[], object]]] = deque()
        self._thread = threading.Thread(target=self._run, name="startgate-exits", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, process: ProcessId, ended: Ended) -> Watch:
        """Call `ended` once the process has ended.

        Raises NotReadable when it has ended already, OSError when no more can be watched.
        """
        raise NotImplementedError

    def unwatch(self, watch: Watch) -> None:
        """Forget a process that is watched. Nothing if it has ended."""
        raise NotImplementedError

    def gone(self, process: ProcessId) -> int | None:
        """Return the wait status of a process that ended before it could be watched here.

        It is known where somebody before us watched it, and died. Else None.
        """
        raise NotImplementedError

    def was_oom_victim(self, watch: Watch) -> bool | None:
        """Did the kernel's OOM killer choose this process, which has ended? None: not known."""
        raise NotImplementedError

    def also(self, fd: int, readable: Callable[[], None]) -> None:
        """Call `readable` on this thread whenever `fd`, which stays the caller's, is readable."""
        self._readable[fd] = readable
        self._epoll.register(fd, select.EPOLLIN)

    def later(self, call: Callable[[], object]) -> None:
        """Call `call` on this thread after DELAY seconds. Only for those who are on it already."""
        self._later.append((time.monotonic() + DELAY, call))

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._stop)

    def _run(self) -> None:
        while True:
            for fd, _ in self._epoll.poll(self._patience()):
                if fd == self._stop:
                    return
                self._guard(partial(self._on_ready, fd))
            while self._later and self._later[0][0] <= time.monotonic():
                self._guard(self._later.popleft()[1])

    def _patience(self) -> float | None:
        return max(0.0, self._later[0][0] - time.monotonic()) if self._later else None

    def _guard(self, call: Callable[[], object]) -> None:
        try:
            call()
        except Exception:
            log.exception("following the end of a process failed")

    def _on_ready(self, fd: int) -> None:
        """Subclasses may register further fds."""
        self._readable[fd]()


class PidfdExits(Exits):
    """Follows processes by pidfds, which it owns."""

    def __init__(self, proc: Proc, memory: ExitMemory | None = None) -> None:
        super().__init__()
        self._proc = proc
        self._memory = memory
        self._watched: dict[int, Watch] = {}

    def watch(self, process: ProcessId, ended: Ended) -> Watch:
        """See Exits. OSError may be ENOSPC, too many watched fds (epoll(7)), or EMFILE."""
        try:
            fd = pidfd.open_process(process.pid)
        except ProcessLookupError as error:
            raise NotReadable(f"process {process.pid} is gone") from error
        try:
            if self._proc.identify(process.pid) != process:  # the pid was reused before
                raise NotReadable(f"process {process.pid} is gone")
            self._expect(process.pid)
            watch = Watch(process, fd, ended)
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

    def unwatch(self, watch: Watch) -> None:
        """See Exits."""
        with self._lock:
            if self._watched.get(watch.fd) is not watch:
                return
            del self._watched[watch.fd]
            self._epoll.unregister(watch.fd)
            os.close(watch.fd)
        if self._memory:
            self._memory.take(watch.process.pid)

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

    def gone(self, process: ProcessId) -> int | None:
        """See Exits."""
        status = self._memory.take(process.pid) if self._memory else None
        return self._zombie_status(process) if status is None else status

    def _wait_status(self, process: ProcessId, fd: int) -> int | None:
        status = self._memory.take(process.pid) if self._memory else None
        if status is None:
            status = self._zombie_status(process)
        return pidfd.wait_status(fd) if status is None else status

    def _zombie_status(self, process: ProcessId) -> int | None:
        """Read the status of a process that nobody has reaped yet.

        Linux 5.10 shows the first thread's, which differs if other threads outlived it.
        """
        try:
            stat = self._proc.stat(process.pid)
        except NotReadable:
            return None
        return stat.exit_code if stat.state == "Z" and stat.start_time == process.start_time else None


class RingExits(Exits):
    """Follows processes by the BPF program's ring buffer."""

    def __init__(self, proc: Proc, memory: ExitMemory) -> None:
        super().__init__()
        self._proc = proc
        self._memory = memory
        self._watched: dict[int, list[Watch]] = {}
        self._ends = memory.ends()
        self.also(self._ends.fileno(), self._read)

    def watch(self, process: ProcessId, ended: Ended) -> Watch:
        """See Exits. `ended` may have been called too, when NotReadable is raised."""
        watch = Watch(process, -1, ended)
        self._memory.expect(process.pid)
        with self._lock:
            self._watched.setdefault(process.pid, []).append(watch)
        # From here on its end is told. It may have come before: then nobody tells.
        if self._proc.is_alive(process):
            return watch
        self.unwatch(watch)
        raise NotReadable(f"process {process.pid} is gone")

    def unwatch(self, watch: Watch) -> None:
        """See Exits."""
        with self._lock:
            watches = self._watched.get(watch.process.pid, [])
            if watch not in watches:
                return
            watches.remove(watch)
            if not watches:
                del self._watched[watch.process.pid]
        self._memory.take(watch.process.pid)

    def gone(self, process: ProcessId) -> int | None:
        """See Exits."""
        return self._memory.take(process.pid)

    def was_oom_victim(self, watch: Watch) -> bool:
        """See Exits."""
        return self._memory.was_oom_victim(watch.process.pid)

    def close(self) -> None:
        """End the thread and the ring buffer."""
        super().close()
        self._ends.close()

    def _read(self) -> None:
        for pid, status in self._ends.read():
            with self._lock:
                watches = self._watched.pop(pid, [])
            for watch in watches:
                self._memory.take(pid)
                watch.ended(status)


def exits_for(proc: Proc, memory: ExitMemory | None) -> Exits:
    """Return what can follow the host's processes from here.

    Raises KernelUnsupported in a child pid namespace without BPF.
    """
    if features.in_initial_pid_namespace():
        return PidfdExits(proc, memory)
    if memory is None:
        raise KernelUnsupported("in a child pid namespace, ends of containers are told by BPF only")
    return RingExits(proc, memory)


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
