"""Writes memory and CPU of each container as CSV: time, name, bytes, seconds of CPU.

It begins before a container does, so no peak at its start is missed. Usage: sample.py [SECONDS]
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from startgate import Container, Event, Watcher

ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def directory_of(container: Container, roots: tuple[str, ...] = ROOTS) -> Path | None:
    """Return the directory of its cgroup: the one with the inode number that the event tells."""
    if container.cgroup is None:
        return None
    for root in roots:
        path = Path(root + container.cgroup.path)
        if path.is_dir() and path.stat().st_ino == container.cgroup.id:
            return path
    return None


def sample(cgroup: Path) -> tuple[int | None, float | None]:
    """Return the bytes of memory, and the seconds of CPU, that it has used; None where nothing tells."""
    memory = cpu = None
    try:
        stat = dict(line.split() for line in (cgroup / "cpu.stat").read_text().splitlines())
        cpu = int(stat["usage_usec"]) / 1e6
        memory = int((cgroup / "memory.current").read_text())  # none where its controller is off
    except (OSError, KeyError):
        pass
    return memory, cpu


def follow(container: Container, cgroup: Path, seconds: float) -> None:
    """Sample until the container's init has ended: its pidfd tells, and is never another process's."""
    init = container.pidfd()
    try:
        ended = False
        while not ended:
            memory, cpu = sample(cgroup)
            numbers = ["" if value is None else f"{value}" for value in (memory, cpu)]
            print(f"{time.time():.3f}", container.name or container.id, *numbers, sep=",", flush=True)
            ended = bool(select.select([init], [], [], seconds)[0])
    finally:
        os.close(init)


def main(seconds: float = 1.0) -> None:
    """Sample until Ctrl-C."""
    watcher = Watcher()

    def begin(event: Event) -> None:
        if event.container and (cgroup := directory_of(event.container)):
            threading.Thread(target=follow, args=(event.container, cgroup, seconds), daemon=True).start()

    watcher.on("created", begin)
    watcher.on("existing", begin)
    with watcher:
        print("time,name,memory,cpu", flush=True)
        for _ in watcher:
            pass


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*map(float, sys.argv[1:2]))
