"""Control groups of our own, of version 1 and 2: to freeze processes, and to be short of things in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kernel.support import eventually, unavailable

ROOT = Path("/sys/fs/cgroup")
LIMITS = {
    "cpu": {"cpu.cfs_quota_us": "{}000", "cpu.max": "{}000 100000"},
    "memory": {"memory.limit_in_bytes": "{}", "memory.max": "{}"},
    "pids": {"pids.max": "{}"},
}


class Cgroup:
    """A directory of one hierarchy."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, pid: int) -> None:
        """Move a process there."""
        (self.path / "cgroup.procs").write_text(str(pid))

    @property
    def prefix(self) -> tuple[str, ...]:
        """What a command line begins with, to be run there."""
        return ("sh", "-c", f'echo $$ >{self.path}/cgroup.procs; exec "$@"', "sh")

    def limit(self, controller: str, value: int) -> None:
        """Set a limit: CPU in percent of one, memory in bytes, pids by number."""
        for name, form in LIMITS[controller].items():
            if (self.path / name).exists():
                (self.path / name).write_text(form.format(value))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze all that is there for the length of the block."""
        self._freeze(True)
        try:
            yield
        finally:
            self._freeze(False)

    def _freeze(self, frozen: bool) -> None:
        if (self.path / "cgroup.freeze").exists():
            (self.path / "cgroup.freeze").write_text(str(int(frozen)))
        else:
            (self.path / "freezer.state").write_text("FROZEN" if frozen else "THAWED")


@contextmanager
def cgroup(controller: str) -> Iterator[Cgroup]:
    """Make one for a controller, or for `freezer` in the hierarchy of that version: ``freezer-1``, ``-2``."""
    group = Cgroup(_hierarchy(controller) / f"startgate-test-{os.getpid()}")
    group.path.mkdir()
    try:
        yield group
    finally:
        assert eventually(lambda: _remove(group.path)), "somebody is still there"


def _hierarchy(controller: str) -> Path:
    unified = next((d for d in (ROOT, ROOT / "unified") if (d / "cgroup.controllers").exists()), None)
    if controller == "freezer-1":
        found = ROOT / "freezer" if (ROOT / "freezer/tasks").exists() else None
    elif controller == "freezer-2":
        found = unified
    elif (ROOT / controller).is_dir():
        found = ROOT / controller
    elif unified and controller in (unified / "cgroup.controllers").read_text().split():
        (unified / "cgroup.subtree_control").write_text(f"+{controller}")
        found = unified
    else:
        found = None
    return found or unavailable(f"this host has no cgroup hierarchy with {controller}")


def _remove(path: Path) -> bool:
    try:
        path.rmdir()
    except OSError:  # EBUSY, until all are dead
        for pid in (path / "cgroup.procs").read_text().split():
            try:
                (path.parent / "cgroup.procs").write_text(pid)
            except OSError:  # it died
                continue
        return False
    return True
