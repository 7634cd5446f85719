"""The thread that follows processes, and what it needs of those who remember their ends."""

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
from typing import NamedTuple, Protocol

from startgate.kernel.process import ProcessFacts, ProcessId

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
    patient: bool = False
    """A clean end, with status 0, is told DELAY seconds later, unless it is forgotten until then."""


class OomKill(NamedTuple):
    """A process that the kernel's OOM killer ended."""

    pid: int
    facts: ProcessFacts
    """At its end; the cgroup is the memory controller's where it is in the unified hierarchy's root."""
    pid_namespaces: tuple[int, ...]
    """Inode numbers of its own and of those around it, from its own on."""
    comm: str

    @property
    def process(self) -> ProcessId:
        """The process, beyond all doubt."""
        return ProcessId(self.pid, self.facts.start_time)


class ExitMemory(Protocol):
    """Remembers the wait statuses of processes that were asked for before they ended."""

    def expect(self, pid: int) -> None:
        """Remember the status of `pid`, when it ends. Raises OSError when it is full."""

    def peek(self, pid: int) -> int | None:
        """Return the wait status, None where not known."""

    def take(self, pid: int) -> int | None:
        """Return it as `peek` does; forget it with the last `take` of as many as there were `expect`s."""

    def was_oom_victim(self, pid: int) -> bool:
        """Did the kernel's OOM killer choose this process, whose status was taken?"""

    def ends(self) -> EndRing:
        """Return the stream of their ends. The caller closes it."""

    def kills(self) -> KillRing:
        """Return the stream of what the OOM killer ends. The caller closes it."""


class KernelStream(Protocol):
    """A stream that the kernel fills."""

    def fileno(self) -> int:
        """Return an fd that polls readable when there is something."""

    def close(self) -> None:
        """Stop reading."""


class EndRing(KernelStream, Protocol):
    """A stream of ends of processes that are expected."""

    def read(self) -> list[tuple[int, int]]:
        """Return (pid, wait status) of those that ended since the last call."""


class KillRing(KernelStream, Protocol):
    """A stream of what the OOM killer ends, on the whole host."""

    def read(self) -> list[OomKill]:
        """Return those since the last call, oldest first."""


class Exits:
    """The thread, and its epoll; subclasses know how to follow a process."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._stop, select.EPOLLIN)
        self._lock = threading.Lock()
        self._readable: dict[int, Callable[[], None]] = {}
        self._later: deque[tuple[float, Callable[[], object]]] = deque()
        self._kills: KillRing | None = None
        self._tell_kill: Callable[[OomKill], object] = lambda kill: None
        self._first: list[Callable[[], object]] = []
        self._rings: list[KernelStream] = []
        self._thread = threading.Thread(target=self._live, name="startgate-exits", daemon=True)
        self.failed: Callable[[str], object] = log.critical
        """Told if the thread dies: no end would be told from then on. Never waits."""

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        """Call `ended` once the process has ended. For `patient` see Watch.

        Raises NotReadable when it has ended already, OSError when no more can be watched.
        """
        raise NotImplementedError

    def unwatch(self, watch: Watch) -> None:
        """Forget a process that is watched. Nothing if its end was told."""
        self._forget(watch)

    def _forget(self, watch: Watch) -> bool:
        """False: it is not watched any more."""
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

    def first(self, ring: KernelStream, readable: Callable[[], object]) -> None:
        """As `also`; it is called before any end is told, too, which the kernel may have told later. The ring
        is ours from now on."""
        self._rings.append(ring)
        self._first.append(readable)
        self.also(ring.fileno(), lambda: None)

    def kills(self, ring: KillRing, tell: Callable[[OomKill], object]) -> None:
        """Call `tell` on this thread for what the OOM killer ends, before its end is told: see `first`."""
        self._kills, self._tell_kill = ring, tell
        self.first(ring, self.read_kills)

    def read_kills(self) -> None:
        """Tell what was killed up to now: on this thread, or before it is started."""
        for kill in self._kills.read() if self._kills else ():
            self._tell_kill(kill)

    def later(self, call: Callable[[], object]) -> None:
        """Call `call` on this thread after DELAY seconds. Only for those who are on it already."""
        self._later.append((time.monotonic() + DELAY, call))

    def _on_end(self, watch: Watch, status: int | None) -> None:
        if watch.patient and status == 0:
            self.later(partial(self._tell, watch, status))
        else:
            self._tell(watch, status)

    def _tell(self, watch: Watch, status: int | None) -> None:
        if self._forget(watch):
            watch.ended(status)

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._stop)
        for ring in self._rings:
            ring.close()

    def _live(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self.failed(f"the thread that follows processes died: {error!r}")

    def _run(self) -> None:
        while True:
            ready = self._epoll.poll(self._patience())
            for read in self._first:
                self._guard(read)
            for fd, _ in ready:
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
