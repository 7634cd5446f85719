"""What a run may leave on a machine: processes, mounts, cgroups, network interfaces, packet filter rules."""

from __future__ import annotations

import ctypes  # noqa: TID251  (prctl: Python has no name for it)
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_PATIENCE = 20.0


def adopt_orphans() -> None:
    """Become the parent of what our descendants leave behind: so it can be found, and ended."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(2)")


def wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child, and meanwhile bury the orphans that were adopted; return its exit status."""
    while True:
        pid, status = os.wait()
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return process.returncode


def end_descendants() -> list[str]:
    """Kill what still runs below us; return its command lines."""
    found: dict[int, str] = {}
    until = time.monotonic() + _PATIENCE
    while (running := dict(_descendants(os.getpid()))) and time.monotonic() < until:
        found |= running
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        _bury()
        time.sleep(0.05)
    return list(found.values())


def _descendants(parent: int) -> Iterator[tuple[int, str]]:
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            yield from _descendants(child)
            try:
                words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(words):  # else a zombie
                yield child, b" ".join(words).decode(errors="replace").strip()


def _bury() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def state() -> set[str]:
    """Return what is there now, as lines. Cgroups in use are somebody's: only empty ones may be left over."""
    return {*_mounts(), *_cgroups(), *_interfaces(), *_filters()}


def left_since(before: set[str]) -> list[str]:
    """Return what is there now and was not before; what is about to go is given the time."""
    until = time.monotonic() + _PATIENCE
    while (left := state() - before) and time.monotonic() < until:
        time.sleep(0.5)
    return sorted(left)


def _mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield f"mount {line.split()[4]}"


def _cgroups() -> Iterator[str]:
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        try:
            if not Path(directory, "cgroup.procs").read_text():
                yield f"cgroup {directory}"
        except OSError:
            continue


def _interfaces() -> Iterator[str]:
    for name in os.listdir("/sys/class/net"):
        yield f"network interface {name}"


def _filters() -> Iterator[str]:
    try:
        rules = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return
    for line in rules.splitlines():
        yield "nft " + re.sub(r"counter packets \d+ bytes \d+", "counter", line.strip())
