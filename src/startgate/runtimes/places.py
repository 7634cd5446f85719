"""Where runtime binaries are looked for on a host, and what must be watched to see them come."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from startgate.engines import ENGINES

NAMES = ("runc", "crun", "conmon", "youki", "runsc", "sysbox-runc", "docker-runc", "buildkit-runc")

# Where distributions and engines put them, beside PATH. Patterns of glob(3).
DIRECTORIES = (
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/opt/bin",
    "/opt/runc/bin",
    "/home/kubernetes/bin",
    "/run/current-system/sw/bin",
    "/x86_64-bottlerocket-linux-gnu/sys-root/usr/bin",
    "/aarch64-bottlerocket-linux-gnu/sys-root/usr/bin",
    *(pattern for engine in ENGINES for pattern in engine.directories),
)

_LINKS = 16


class Places:
    """The directories of one host, whose root directory is mounted at `host`."""

    def __init__(self, host: str) -> None:
        self._host = host

    def on_host(self, path: str) -> str:
        """Return the path by which we reach a path of the host."""
        return os.path.join(self._host, path.lstrip("/"))

    def directories(self, extra: Iterable[str]) -> list[str]:
        """Return those that exist: the usual ones, PATH's, and those of the binaries `extra`."""
        found = (directory for pattern in self._patterns(extra) for directory in glob.glob(pattern))
        return list(dict.fromkeys(os.path.realpath(directory) for directory in found))

    def to_watch(self, extra: Iterable[str]) -> list[str]:
        """Return every directory in which one of them, or a part of the way to it, may appear.

        All levels: whole trees are renamed into place, at any height.
        """
        watched = dict[str, None]()
        for pattern in dict.fromkeys(self._patterns(extra)):
            for level in _levels(pattern):
                if level not in watched:
                    watched |= dict.fromkeys(glob.glob(level))
        for path in self.candidates(extra):
            watched |= dict.fromkeys(self._hops(path))
        return list(watched)

    def candidates(self, extra: Iterable[str]) -> Iterator[str]:
        """Yield the paths at which a runtime binary may be."""
        extra = list(extra)
        yield from extra
        for directory in self.directories(extra):
            for name in NAMES:
                yield os.path.join(directory, name)

    def leads(self, path: str, extra: Iterable[str]) -> bool:
        """Is the path on the way to one of the directories, or a file in one? So that what appears there may
        be, or bring, a runtime binary."""
        parts = _parts(path)
        return any(_is_on_the_way(parts, _parts(pattern)) for pattern in self._patterns(extra))

    def _patterns(self, extra: Iterable[str]) -> list[str]:
        return [
            *map(self.on_host, (*DIRECTORIES, *os.get_exec_path())),
            *(os.path.dirname(path) for path in extra),
        ]

    def _hops(self, path: str) -> Iterator[str]:
        """Yield the directories of the links on the way to a file: alternatives are switched there."""
        for _ in range(_LINKS):
            try:
                target = os.readlink(path)
            except OSError:
                return
            path = self.on_host(target) if target.startswith("/") else os.path.dirname(path) + "/" + target
            yield os.path.dirname(path)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _is_on_the_way(path: list[str], pattern: list[str]) -> bool:
    return len(path) <= len(pattern) + 1 and all(map(fnmatchcase, path, pattern))


def _levels(pattern: str) -> Iterator[str]:
    """Yield the beginnings of a path: ``/``, ``/a``, ``/a/*``."""
    parts = pattern.strip("/").split("/")
    for count in range(len(parts) + 1):
        yield "/" + "/".join(parts[:count])
