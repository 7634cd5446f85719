"""Signals that come to a loop around epoll as bytes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from startgate.agent.handover import SIGNALS


def listen() -> int:
    """Return an fd that tells the numbers of the signals that concern the supervisor."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # `kept` by who executed us
    return reader


def read(reader: int) -> bytes:
    """Return the numbers of the signals that have come."""
    try:
        return os.read(reader, 64)
    except BlockingIOError:
        return b""


@contextmanager
def kept(reader: int) -> Iterator[None]:
    """For the length of the block signals wait, also beyond an execve: it resets handlers, and
    SIGUSR2 would kill whom it makes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    for number in read(reader):  # come a moment before
        os.kill(os.getpid(), number)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def cause(code: int) -> str:
    """Return how a process ended: `code` is as `os.waitstatus_to_exitcode` has it."""
    return f"signal {-code}" if code < 0 else f"exit status {code}"
