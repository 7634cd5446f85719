"""One tracer: its process, and the thread that looks after it until it has ended."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Literal

from startgate.events import Container
from startgate.hooks import process
from startgate.kernel import pidfd, spawn
from startgate.tracing.ready import ENVIRONMENT, ReadyWhen, traced_threads

Kind = Literal["ready", "late", "failed", "ended", "stdout", "stderr"]

_LOOK = 0.002
"""Seconds between looks whether a debugger is attached: nothing tells it."""
_THREADS = 0.02
"""Seconds for which the other threads of an init are waited for: a tracer may want the first one only."""
_BY_ITSELF = 0.3
"""Seconds that a tracer has to end by itself, once its container has."""
_CHUNK = 1 << 16
_LINE = 1 << 16
"""Bytes of a line that are kept together."""
_LEFT = 16
"""Reads of what a tracer that has ended left in a pipe."""
_SAID = 500
"""Characters of its last word that go into an error."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a container's tracer.

    `ready`: it was, before the container went on; `late`: after. `failed`: it could not be started, or was
    not ready in time. `ended`: how it did. `stdout`, `stderr`: a line that it printed.
    """

    container: Container
    kind: Kind
    text: str


Tell = Callable[[Told], object]


class Tracer:
    """A tracer that runs. `tell` is called on its thread, or on who waits for it."""

    def __init__(
        self,
        container: Container,
        words: Sequence[str],
        ready: ReadyWhen,
        *,
        grace: float,
        waited_for: bool,
        tell: Tell,
        ended: Callable[[Tracer], object],
    ) -> None:
        """Starts it. Raises OSError where it can't be, or where the container has ended.

        `waited_for`: the container waits until it is ready. `ended` is called on its thread, once.
        """
        self.container = container
        self.over = False
        self._ended = ended
        self._ready, self._grace, self._tell_of = ready, grace, tell
        self._began = time.monotonic()
        self._settled = threading.Event()
        self._lock = threading.Lock()
        self._failure: str | None = None
        self._waiting = waited_for
        self._asked = False
        self._kills: list[tuple[float, signal.Signals]] = []
        self._attached: float | None = None
        self._last = ""
        with ExitStack() as ours:
            self._init = _owned(container.pidfd(), ours)
            self._wake = _owned(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK), ours)
            self.pid, self._process = self._spawn(words, ours)
            self._ours = ours.pop_all()
        if ready.how == "exec":
            self._settle(None)
        self._thread = threading.Thread(target=self._run, name="startgate-tracer", daemon=True)
        self._thread.start()

    def _spawn(self, words: Sequence[str], ours: ExitStack) -> tuple[int, int]:
        with ExitStack() as given:
            null = _owned(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), given)
            (out, stdout), (err, stderr) = process.pipe(ours, given), process.pipe(ours, given)
            files = [null, stdout, stderr]
            self._says = -1
            if self._ready.how == "fd":
                self._says, says = process.pipe(ours, given)
                files.append(says)
            self._lines = {out: _Lines("stdout"), err: _Lines("stderr")}
            pid = spawn.start(words, {**os.environ, **ENVIRONMENT}, files, os.getcwd())
        try:
            return pid, _owned(pidfd.open_process(pid), ours)
        except OSError:  # no fd is free
            process.kill(pid)
            process.reap(pid)
            raise

    def wait(self, seconds: float) -> str | None:
        """Wait until it is ready. Return what is wrong, None if nothing is."""
        if self._settled.wait(max(0.0, seconds)):
            return self._failure
        with self._lock:
            self._waiting = self._settled.is_set()
        took = time.monotonic() - self._began
        return self._failure if self._waiting else f"it was not ready after {took:.2f} s"

    def end(self) -> None:
        """Ask it to end, and kill it if it does not."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)

    def _run(self) -> None:
        try:
            self._follow()
        finally:
            outcome, said = self._reap(), self._last
            self._settle(f"it ended before it was ready: {outcome}" + (f": {said}" if said else ""))
            self._tell("ended", outcome + (", as asked" if self._asked else ""))
            self._ended(self)

    def _follow(self) -> None:
        """Until it ends: pass on what it prints, see when it is ready, end it after its container."""
        poll = select.poll()
        watched = {self._process, self._init, self._wake, self._says, *self._lines} - {-1}
        for fd in watched:
            poll.register(fd, select.POLLIN)
        while True:
            found = {fd for fd, _ in poll.poll(self._patience())}
            done = {fd for fd in found & self._lines.keys() if not self._read(fd)}
            done |= self._hear(found) | self._ending(found)
            for fd in done:
                poll.unregister(fd)
            self._look()
            if self._process in found:
                return
            self._kill_late()

    def _patience(self) -> float | None:
        """Return how long nothing need be done, in ms."""
        ends = [max(0.0, at - time.monotonic()) for at, _ in self._kills]
        if self._ready.how == "ptrace" and not self._settled.is_set():
            ends.append(_LOOK)
        return min(ends) * 1000 if ends else None

    def _read(self, fd: int) -> bool:
        """Pass on the lines that are there. False: there will be no more."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return True
        lines = self._lines[fd]
        for text in lines.take(data):
            said = self._ready.is_said_by(text)
            if said:
                self._settle(None)
            if not (said and self._ready.hidden):
                self._tell(lines.kind, text)
        if self._ready.is_said_by(lines.begun):  # a prompt ends with no newline
            self._settle(None)
        return bool(data)

    def _hear(self, found: set[int]) -> set[int]:
        if self._says not in found:
            return set()
        self._settle(None if os.read(self._says, _CHUNK) else "it closed {ready_fd} without a word")
        return {self._says}

    def _look(self) -> None:
        if self._ready.how != "ptrace" or self._settled.is_set():
            return
        first, every = traced_threads(self.container.pid or 0)
        if first and self._attached is None:
            self._attached = time.monotonic()
        if every or (self._attached is not None and time.monotonic() - self._attached > _THREADS):
            self._settle(None)

    def _ending(self, found: set[int]) -> set[int]:
        """Return which of these need not be listened to any more."""
        if self._wake in found:
            self._end_from(time.monotonic())
        elif self._init in found and not self._kills:
            self._end_from(time.monotonic() + _BY_ITSELF)
        return found & {self._wake, self._init}

    def _end_from(self, moment: float) -> None:
        self._kills = [(moment, signal.SIGTERM), (moment + self._grace, signal.SIGKILL)]

    def _kill_late(self) -> None:
        while self._kills and self._kills[0][0] <= time.monotonic():
            _, number = self._kills.pop(0)
            self._asked = True
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)  # not reaped yet: it leads its session

    def _settle(self, failure: str | None) -> None:
        """It is ready, or never will be: the first word counts."""
        with self._lock:
            if self._settled.is_set():
                return
            self._failure, waiting = failure, self._waiting
            self._settled.set()
        if failure is None:
            took = (time.monotonic() - self._began) * 1000
            self._tell("ready" if waiting else "late", f"ready after {took:.0f} ms, pid {self.pid}")

    def _reap(self) -> str:
        """Pass on what is left, close all; return how it ended."""
        for fd, lines in self._lines.items():
            for _ in range(_LEFT):  # others may hold the other end, and go on writing
                if not self._read(fd):
                    break
            if rest := lines.rest():
                self._tell(lines.kind, rest)
        status = process.reap(self.pid)
        with self._lock:
            self._ours.close()
            self._wake = -1
        return process.describe(status) or "exit 0"

    def _tell(self, kind: Kind, text: str) -> None:
        if kind == "stderr":
            self._last = _more_telling(self._last, text.strip()[:_SAID])
        self._tell_of(Told(self.container, kind, text))


def _more_telling(before: str, line: str) -> str:
    """Return what says best what went wrong: the last line that says something, or that names an error."""
    if not any(map(str.isalnum, line)) or ("error" in before.lower() and "error" not in line.lower()):
        return before
    return line


class _Lines:
    """What comes through a pipe, line by line."""

    def __init__(self, kind: Literal["stdout", "stderr"]) -> None:
        self.kind: Kind = kind
        self._data = b""

    def take(self, data: bytes) -> list[str]:
        """Return the lines that are complete now."""
        *lines, self._data = (self._data + data).split(b"\n")
        if len(self._data) > _LINE:
            lines.append(self.rest().encode(errors="replace"))
        return [line.decode(errors="replace") for line in lines]

    @property
    def begun(self) -> str:
        """The line that has no end yet."""
        return self._data.decode(errors="replace")

    def rest(self) -> str:
        """Return what had no end, and forget it."""
        text, self._data = self.begun, b""
        return text


def _owned(fd: int, owner: ExitStack) -> int:
    owner.callback(os.close, fd)
    return fd
