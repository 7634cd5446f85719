"""What tells this boot of this node from all others."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path

from startgate.kernel.process import ProcessId, boot_seconds


@cache
def boot_id() -> str:
    """Return the kernel's number of this boot, "" where it is not told (proc_sys_kernel(5))."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@cache
def name() -> str:
    """Return the node's name: $STARTGATE_NODE, else the host's."""
    return os.environ.get("STARTGATE_NODE") or os.uname().nodename


def start_id(runtime: ProcessId) -> str:
    """Return what no other start on this node has: a process may start several containers."""
    return _identity(time.clock_gettime_ns(time.CLOCK_BOOTTIME), runtime.pid)


def start_id_of_init(init: ProcessId) -> str:
    """Return the same of a container whose start nobody has seen: whoever looks says the same."""
    return _identity(round(boot_seconds(init) * 1e9), init.pid)


def exec_id(runtime: ProcessId) -> str:
    """Return what no other `exec` on this node has: a runtime's process makes one."""
    return _identity(round(boot_seconds(runtime) * 1e9), runtime.pid)


def _identity(nanoseconds: int, pid: int) -> str:
    return f"{boot_id()[:8]}-{nanoseconds:x}-{pid:x}"
