"""Where tests hold starts: a mount namespace with copies of the runtimes: nobody else's are ever held.

Its /run is its own, too: a second run of the tests, or an engine of this host, is not met there. What a test
leaves behind is found by a word in its environment, or by the name of its cgroup: it holds nobody any longer.
"""

from __future__ import annotations

import ctypes  # noqa: TID251  (os.unshare is there from Python 3.12 on)
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from startgate.runtimes.places import DIRECTORIES, NAMES

_CLONE_NEWNS = 0x0002_0000
_RUN = "STARTGATE_TEST_RUN"
_PATIENCE = 5.0


def enter(directory: Path) -> None:
    """Move this process there; what it starts comes along."""
    os.environ[_RUN] = str(os.getpid())
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare(2)")
    _mount("--make-rprivate", "/")
    for path in _runtimes():
        copy = directory / f"{len(list(directory.iterdir()))}-{path.name}"
        shutil.copy2(path, copy)
        _mount("--bind", str(copy), str(path))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    os.mkdir("/run/lock")


def _runtimes() -> set[Path]:
    places = {*DIRECTORIES, *os.get_exec_path()}
    found = (Path(place, name) for place in places for name in NAMES)
    return {path.resolve() for path in found if path.is_file()}


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def processes() -> dict[int, str]:
    """Return the processes of this run of the tests but this one: daemons, and what runs in containers."""
    return {pid: line for pid, line in _processes() if pid != os.getpid()}


def _processes() -> Iterator[tuple[int, str]]:
    word, cgroup = f"{_RUN}={os.getpid()}\0".encode(), _cgroup_name()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = word in (process / "environ").read_bytes() + b"\0"
            if ours or cgroup.search((process / "cgroup").read_text()):
                words = (process / "cmdline").read_bytes().split(b"\0")
                if any(words):  # else a zombie
                    yield int(process.name), b" ".join(words).decode(errors="replace").strip()
        except OSError:
            continue


def _cgroup_name() -> re.Pattern[str]:
    """Cgroups are named after containers and engines, whose names hold the pid of the run."""
    return re.compile(rf"/[a-z-]*{os.getpid()}(-[^/\n]*)?$", re.MULTILINE)


def end(before: dict[int, str]) -> list[str]:
    """Kill what was not there `before` and does not go by itself; return its command lines."""
    until = time.monotonic() + _PATIENCE
    while (
        left := {p: line for p, line in processes().items() if p not in before}
    ) and time.monotonic() < until:
        time.sleep(0.05)
    for pid in left:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return list(left.values())


def leave() -> list[str]:
    """Kill what is left of this run, and remove its cgroups; return the command lines."""
    ended = end({})
    for directory, _, _ in os.walk("/sys/fs/cgroup", topdown=False):
        if _cgroup_name().search(directory):
            try:
                os.rmdir(directory)
            except OSError:
                continue
    return ended
