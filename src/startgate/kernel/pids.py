"""Pids as other pid namespaces count them: pid_namespaces(7), NSpid in proc_pid_status(5)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from typing import NamedTuple

from startgate.errors import NotReadable
from startgate.kernel.process import Proc

_NS_GET_PARENT = 0xB702  # _IO(0xb7, 2), <linux/nsfs.h>


class PidNamespace(NamedTuple):
    """A pid namespace below the host's."""

    inode: int
    depth: int
    """How many pids its processes have, the host's and its own included."""


def namespace_of(proc: Proc, pid: int, inode: int | None = None) -> PidNamespace | None:
    """Return the pid namespace in which a process counts; None: it is the host's. Raises NotReadable.

    `inode` is its number, where that is known.
    """
    inode = inode or proc.namespace(pid, "pid")
    if inode is None or inode == proc.host_namespaces().get("pid"):
        return None
    depth = len(_pids(proc, pid))
    return PidNamespace(inode, depth) if depth > 1 else None  # the host's pid 1 may be hidden from us


def host_pids(proc: Proc, number: int, namespace: PidNamespace | None) -> Iterator[int]:
    """Yield the host pid of who is `number` in that namespace. Looks at every process: on a worker."""
    if namespace is None:
        yield number
        return
    running = [int(name) for name in os.listdir(proc.root) if name.isdecimal()]
    for pid in sorted(running, reverse=True):  # who is looked for is young, most likely
        try:
            pids = _pids(proc, pid)
            if len(pids) >= namespace.depth and pids[namespace.depth - 1] == number:
                above = len(pids) - namespace.depth
                if _ancestor(f"{proc.root}/{pid}/ns/pid", above) == namespace.inode:
                    yield pid
        except (NotReadable, OSError, ValueError):  # it is gone
            continue


def _pids(proc: Proc, pid: int) -> list[int]:
    return [int(word) for word in proc.status(pid).get("NSpid", str(pid)).split()]


def _ancestor(path: str, generations: int) -> int:
    """Return the inode number of the namespace that is so far above the one at a path."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(generations):
            parent = fcntl.ioctl(fd, _NS_GET_PARENT)
            os.close(fd)
            fd = parent
        return os.fstat(fd).st_ino
    finally:
        os.close(fd)
