"""One run of a hook's program, from its start to its reaping."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from startgate.kernel import memfd, pidfd, spawn

_KEPT = 4096
_LINE = 500
_CHUNK = 1 << 16  # a pipe's capacity (pipe(7))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended. `status` is a wait status, None where somebody else reaped it."""

    status: int | None
    stdout: bytes
    stderr: bytes
    killed: str | None = None
    """Why we killed it."""

    @property
    def failure(self) -> str | None:
        """What went wrong, None if nothing did."""
        told = self.killed or describe(self.status)
        line = _last_line(self.stderr) or _last_line(self.stdout)
        return f"{told}: {line}" if told and line else told


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    documents: Sequence[bytes],
    timeout: float,
    running: Children,
) -> Outcome:
    """Run a program until its main process ends, or `timeout` seconds pass: then its process
    group is killed. `running` may kill it before.

    The first of `documents` is its standard input, the others its fds from 3 on. Of its
    output the end is kept, the rest is read and dropped. What it left running in the
    background goes on. Raises OSError when the program can't be started.
    """
    with ExitStack() as ours:
        with ExitStack() as given:
            stdin, *others = [_file(document, given) for document in documents]
            (out, stdout), (err, stderr) = pipe(ours, given), pipe(ours, given)
            pid = spawn.start(command, environment, [stdin, stdout, stderr, *others])
        tails = {out: bytearray(), err: bytearray()}
        try:
            with running.including(pid):
                in_time = _wait(pid, tails, timeout)
        finally:
            status = reap(pid)
        for fd, tail in tails.items():
            _drain(fd, tail)
    killed = None if in_time else f"not done within {timeout:g} s"
    return Outcome(status, bytes(tails[out]), bytes(tails[err]), killed)


class Children:
    """The processes that run; `end` kills them, and those that are started later."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pids: set[int] = set()
        self.ended = False

    @contextmanager
    def including(self, pid: int) -> Iterator[None]:
        """The block must not reap the process: its pid is its own until then."""
        with self._changed:
            self._pids.add(pid)
            if self.ended:
                kill(pid)
        try:
            yield
        except BaseException:
            kill(pid)
            raise
        finally:
            with self._changed:
                self._pids.remove(pid)
                self._changed.notify_all()

    def end(self, grace: float) -> None:
        """Kill all; wait until they have ended, or `grace` seconds."""
        with self._changed:
            self.ended = True
            for pid in self._pids:
                kill(pid)
            self._changed.wait_for(lambda: not self._pids, grace)


def _file(data: bytes, owner: ExitStack) -> int:
    """Return a file in memory: unlike a pipe it takes all of it, and needs no reader."""
    fd = memfd.create("startgate")
    owner.callback(os.close, fd)
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def pipe(reader: ExitStack, writer: ExitStack) -> tuple[int, int]:
    """Return a pipe's ends, and who closes them. Who reads it does not wait."""
    ends = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, ends[0])
    writer.callback(os.close, ends[1])
    os.set_blocking(ends[0], False)
    return ends


def _wait(pid: int, tails: dict[int, bytearray], timeout: float) -> bool:
    """Read what it prints until it ends. False: it did not, and was killed."""
    until = time.monotonic() + timeout
    try:
        process = pidfd.open_process(pid)
    except ProcessLookupError:  # reaped already: our SIGCHLD is ignored
        return True
    try:
        poll = select.poll()
        for fd in (process, *tails):
            poll.register(fd, select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            ready = {fd for fd, _ in poll.poll(left * 1000)}
            if process in ready:
                return True
            for fd in ready:
                if not _read(fd, tails[fd]):
                    poll.unregister(fd)
    finally:
        os.close(process)
    kill(pid)
    return False


def kill(pid: int) -> None:
    """Kill the process group of a process that is not reaped yet: it leads a session."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def reap(pid: int) -> int | None:
    """Wait for its end; return its wait status, None where somebody else reaped it."""
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return None


def _read(fd: int, tail: bytearray) -> bool:
    """Read once, keep the end. False: there is no more, or not now."""
    try:
        data = os.read(fd, _CHUNK)
    except BlockingIOError:
        return False
    tail += data
    del tail[:-_KEPT]
    return bool(data)


def _drain(fd: int, tail: bytearray) -> None:
    """Read what it left in the pipe; others may hold the other end, and go on writing."""
    for _ in range(16):
        if not _read(fd, tail):
            return


def describe(status: int | None) -> str | None:
    """Return what was wrong with its end, None if nothing was."""
    if status is None:
        return "its exit status is not known"
    code, number = pidfd.decode_wait_status(status)
    if number is not None:
        return f"killed by {signal.Signals(number).name if number in _SIGNALS else f'signal {number}'}"
    return f"exit {code}" if code else None


_SIGNALS = frozenset(signal.Signals)


def _last_line(output: bytes) -> str:
    """Return the last line that says something, fit for a terminal."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    last = next((line for line in reversed(lines) if line), "")
    return "".join(c if c.isprintable() else "\ufffd" for c in last[:_LINE])
