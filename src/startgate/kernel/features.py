"""What this kernel lets us do, found by trying it."""

from __future__ import annotations

import errno
import os
import re
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from startgate.errors import KernelUnsupported
from startgate.kernel import files, memfd, namespaces, pidfd
from startgate.kernel.fanotify import FAN_ALLOW, FAN_OPEN_EXEC_PERM, Group, Marker, PermissionEvent

_PATIENCE_MS = 2000
_PROC_PID_INIT_INO = 0xEFFFFFFC
_PROC_CGROUP_INIT_INO = 0xEFFFFFFB
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH, _CAP_KILL = 1, 2, 5


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
def executing(group: Marker) -> Iterator[None]:
    """Mark a small script of our own, and execute it for the length of the block.

    Raises KernelUnsupported when it can't be marked.
    """
    # In memory: no directory need be writable, or without `noexec`, as in a container with a read-only root.
    fd = memfd.create_program("startgate-probe")
    try:
        os.write(fd, b"#!/bin/sh\nexit 0\n")
        script = f"/proc/{os.getpid()}/fd/{fd}"
        try:
            group.mark(FAN_OPEN_EXEC_PERM, script)
        except OSError as error:
            raise KernelUnsupported(f"fanotify can't mark a program: {error.strerror}") from error
        # posix_spawn(3) returns after the execve, which is to be held: a shell in between. The script's
        # second argument is a word that every command line with it is held for.
        child = os.posix_spawn("/bin/sh", ["sh", "-c", f"exec {script} create argument"], os.environ)
        try:
            yield
        finally:
            os.waitpid(child, 0)
    finally:
        os.close(fd)


@contextmanager
def held_exec(group: Group) -> Iterator[PermissionEvent]:
    """Hold such an execution in its execve; let it go at the end.

    Raises KernelUnsupported when the kernel does not hold it.
    """
    with executing(group):
        yield from _next_event(group)


def _next_event(group: Group) -> Iterator[PermissionEvent]:
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


def in_initial_pid_namespace() -> bool:
    """Are our pids the host's? That namespace's inode number is fixed (PROC_PID_INIT_INO)."""
    return os.stat("/proc/self/ns/pid").st_ino == _PROC_PID_INIT_INO


def in_initial_cgroup_namespace() -> bool:
    """Do /proc/PID/cgroup's paths begin at the hierarchy's root? (PROC_CGROUP_INIT_INO)."""
    return os.stat("/proc/self/ns/cgroup").st_ino == _PROC_CGROUP_INIT_INO


def is_host_proc(path: str) -> bool:
    """Is the procfs mounted at `path` the initial pid namespace's? Only that has kernel threads."""
    try:
        return Path(path, "2/comm").read_text() == "kthreadd\n"
    except OSError:
        return False


def check_host_root(path: str) -> None:
    """Raises KernelUnsupported when `path` has not the host's /proc below it."""
    proc = os.path.join(path, "proc")
    if is_host_proc(proc):
        return
    if in_initial_pid_namespace():
        raise KernelUnsupported(
            f"{proc} is not the host's /proc: --host-root says where the host's root is mounted"
        )
    raise KernelUnsupported(
        f"this is a child pid namespace, and {proc} is not the host's /proc: mount the host's root "
        "directory, and name it by --host-root or STARTGATE_HOST_ROOT"
    )


def check_other_processes(host: str) -> None:
    """Raises KernelUnsupported when the directories and files of other processes can't be reached."""
    try:
        # kthreadd has every capability: one who has fewer needs CAP_SYS_PTRACE (ptrace_may_access()).
        os.readlink(os.path.join(host, "proc/2/root"))
    except OSError as error:
        raise KernelUnsupported(
            "the root directories and namespaces of other processes can't be reached: CAP_SYS_PTRACE is "
            f"missing ({error.strerror})"
        ) from error
    _check_openat2()


def _check_openat2() -> None:
    """Their files are opened by it. Seccomp filters of before Linux 5.6, and systemd's RestrictSUIDSGID=,
    take it away."""
    root = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        os.close(files.open_in_root(root, "/", os.O_PATH))
    except OSError as error:
        raise KernelUnsupported(
            "files of other processes can't be opened: openat2(2) is missing, or a seccomp filter denies it "
            f"({error.strerror})"
        ) from error
    finally:
        os.close(root)


def check_other_users() -> None:
    """Raises KernelUnsupported when the modes of files that others own hold for us."""
    if not _has_one_of(_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH):
        raise KernelUnsupported("their modes hold for us: CAP_DAC_READ_SEARCH is missing")


def check_kill() -> None:
    """Raises KernelUnsupported when processes of other users can't be killed."""
    if not _has_one_of(_CAP_KILL):
        raise KernelUnsupported("CAP_KILL is missing")


def _has_one_of(*capabilities: int) -> bool:
    held = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return held is not None and any(int(held[1], 16) >> number & 1 for number in capabilities)


def join_host_cgroup_namespace(host: str) -> None:
    """See the cgroup paths of all processes as the host does. Raises KernelUnsupported."""
    path = os.path.join(host, "proc", "2/ns/cgroup")
    try:
        if os.stat(path).st_ino != os.stat("/proc/self/ns/cgroup").st_ino:
            namespaces.join_cgroup_namespace(path)
    except OSError as error:
        raise KernelUnsupported(f"the host's cgroup namespace can't be joined: {error.strerror}") from error


def has_exit_info() -> bool:
    """Does PIDFD_GET_INFO tell the exit status of a reaped process (Linux 6.15)?"""
    child = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 7"], os.environ)
    fd = pidfd.open_process(child)
    try:
        os.waitpid(child, 0)
        return pidfd.wait_status(fd) == 7 << 8
    finally:
        os.close(fd)
