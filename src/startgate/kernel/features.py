"""What this kernel lets us do, found by trying it."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from startgate.errors import KernelUnsupported
from startgate.kernel import pidfd
from startgate.kernel.fanotify import FAN_ALLOW, FAN_OPEN_EXEC_PERM, Event, Group

_PATIENCE_MS = 2000


def open_group(*, report_tid: bool = False) -> Group:
    """Return a new fanotify group. Raises KernelUnsupported, which says what is missing."""
    try:
        return Group(report_tid=report_tid)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise KernelUnsupported(
                "holding containers needs CAP_SYS_ADMIN in the initial user namespace: run as root"
            ) from error
        raise KernelUnsupported(f"this kernel has no fanotify permission events: {error.strerror}") from error


@contextmanager
def held_exec(group: Group) -> Iterator[Event]:
    """Execute a small script of our own and hold it in its execve; let it go at the end.

    Raises KernelUnsupported when the kernel does not hold it.
    """
    with TemporaryDirectory(prefix="startgate-") as directory:
        script = Path(directory) / "probe"
        script.write_text("#!/bin/sh\nexit 0\n")
        script.chmod(0o700)
        try:
            group.mark(FAN_OPEN_EXEC_PERM, str(script))
        except OSError as error:
            raise KernelUnsupported(f"fanotify can't mark a program: {error.strerror}") from error
        # posix_spawn(3) returns after the execve, which is to be held: a shell in between.
        child = os.posix_spawn("/bin/sh", ["sh", "-c", f"exec {script} argument"], os.environ)
        try:
            yield from _next_event(group)
        finally:
            os.waitpid(child, 0)


def _next_event(group: Group) -> Iterator[Event]:
    poll = select.poll()
    poll.register(group, select.POLLIN)
    event = group.read() if poll.poll(_PATIENCE_MS) else None
    if event is None:
        raise KernelUnsupported("an execution of a marked program was not held")
    try:
        yield event
    finally:
        group.answer(event.fd, FAN_ALLOW)
        os.close(event.fd)


def has_exit_info() -> bool:
    """Does PIDFD_GET_INFO tell the exit status of a reaped process (Linux 6.15)?"""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
    fd = pidfd.open_process(child)
    try:
        os.waitpid(child, 0)
        return pidfd.wait_status(fd) == 7 << 8
    finally:
        os.close(fd)
