"""`container.actual.limits`: what the cgroups of a container's init, and those above them, let it have.

Engines and runtimes put a limit into the init's cgroup, or into one above (crun's `container` below
systemd's scope); whichever is the least holds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from startgate.actual import UNLIMITED, Limits
from startgate.kernel.cgroups import parse_cgroup
from startgate.kernel.process import Proc

_SIZE_LIMIT = 64
_NO_LIMIT = 1 << 62
"""Bytes: v1 tells the largest number of pages that a counter takes."""
_DEPTH = 64

Value = tuple[int, int]
"""What is allowed, and in which period (of memory and pids: 1)."""


def limits_of(proc: Proc, pid: int) -> Limits:
    """Return the limits of a living process. Reads files of cgroupfs only, which never wait for anybody.

    Raises NotReadable when the process is gone.
    """
    text = proc.read(pid, "cgroup").decode(errors="surrogateescape")
    places = dict(_places(proc, text))
    memory = _least(places, "memory", ("memory.max",), ("memory.limit_in_bytes",))
    pids = _least(places, "pids", ("pids.max",), ("pids.max",))
    cpu = _least(places, "cpu", ("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return Limits(
        memory=memory and memory[0],
        pids=pids and pids[0],
        cpu_quota=cpu and cpu[0],
        cpu_period=cpu[1] if cpu and cpu[0] != UNLIMITED else None,
    )


def _places(proc: Proc, text: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield, for each controller of v1, and for v2 as "", the hierarchy's directory and the path in it."""
    for kind, path in parse_cgroup(text):
        with suppress(KeyError, OSError):  # it is not mounted where we are
            mounted = proc.hierarchy(kind)
            if ".." in path.split("/") or not os.path.isdir(mounted + path):
                continue  # our view of the hierarchy is another
            for controller in kind.split(","):
                yield controller, (mounted, path)


def _least(
    places: dict[str, tuple[str, str]], controller: str, new: Iterable[str], old: Iterable[str]
) -> Value | None:
    """Return the least of what the cgroup and those above it allow; None: it can't be known here."""
    names = old if controller in places else new
    found = places.get(controller, places.get(""))
    if found is None:
        return None
    least = (UNLIMITED, 1)
    for directory in _upwards(*found):
        value = _read(directory, names)
        if value and (least[0] == UNLIMITED or value[0] * least[1] < least[0] * value[1]):
            least = value
    return least


def _upwards(mounted: str, path: str) -> Iterator[str]:
    """Yield the directory of a cgroup and those above it; the root has no limits."""
    for _ in range(_DEPTH):
        if path == "/":
            return
        yield mounted + path
        path = os.path.dirname(path)


def _read(directory: str, names: Iterable[str]) -> Value | None:
    """Return the limit there; None: there is none."""
    words: list[str] = []
    for name in names:
        try:
            with open(f"{directory}/{name}", "rb") as file:
                words += file.read(_SIZE_LIMIT).decode("ascii", "replace").split()
        except OSError:  # the controller is not enabled there
            return None
    if not words or not all(word.isdecimal() for word in words) or int(words[0]) >= _NO_LIMIT:
        return None  # `max`, or -1
    return int(words[0]), int(words[1]) if len(words) > 1 else 1
