"""Whole tables of mounts, proc_pid_mountinfo(5), and what the host calls a place in a file system."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from startgate.errors import NotReadable
from startgate.kernel.layers import MountLine, parse_mount

LIMIT = 1 << 20
"""Bytes of a table: some thousands of mounts. The kernel allows 100,000 (sysctl fs.mount-max)."""
HOST_LIMIT = 16 << 20
"""Of the host's: it has a line for each container."""
_CHUNK = 1 << 16  # the kernel gives no more than what fits of whole lines


def read(process: str, limit: int | None = None) -> tuple[bytes, bool]:
    """Return the whole lines of a process's table, by its directory in /proc; and: are they all?

    Raises NotReadable when it is gone.
    """
    data, limit = bytearray(), limit or LIMIT
    try:
        fd = os.open(f"{process}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while len(data) < limit and (chunk := os.read(fd, _CHUNK)):
                data += chunk
        finally:
            os.close(fd)
    except OSError as error:
        raise NotReadable(f"the mounts of {process}: {error.strerror}") from error
    whole = data[: data.rfind(b"\n") + 1]
    return bytes(whole), len(data) < limit


def parse(table: bytes) -> Iterator[MountLine]:
    """Yield the mounts, as the kernel lists them. Only a newline ends a line: a path may hold all others."""
    for line in table.split(b"\n"):
        if mount := parse_mount(os.fsdecode(line)):
            yield mount


class HostNames:
    """The paths at which the host has parts of its file systems mounted. One thread uses it.

    Its table has a line for each container, so a line is parsed only once its device is asked for.
    """

    def __init__(self, tables: Iterable[tuple[bytes, str]]) -> None:
        """Tables, each with the directory of the host's root: what is elsewhere is not the host's."""
        self._tables = [(_by_device(table), host.rstrip("/")) for table, host in tables]
        self._known: dict[str, list[tuple[MountLine, str]]] = {}

    def of(self, mount: MountLine) -> tuple[str, ...] | None:
        """Return the host's paths of what is mounted, the shortest one first.

        None: it is on no file system that the host has mounted. Those that are below other mounts are
        among them: what is hidden now need not have been.
        """
        if mount.device not in self._known:
            self._known[mount.device] = list(self._mounted(mount.device.encode()))
        if not (mounted := self._known[mount.device]):
            return None
        paths = ((_path(each, mount.root), host) for each, host in mounted)
        found = {path.removeprefix(host) or "/" for path, host in paths if path is not None}
        return tuple(sorted(found, key=lambda path: (len(path), path)))

    def _mounted(self, device: bytes) -> Iterator[tuple[MountLine, str]]:
        for lines, host in self._tables:
            for line in lines.get(device, ()):
                mount = parse_mount(os.fsdecode(line))
                if mount and is_within(mount.point, host or "/"):
                    yield mount, host


def is_within(path: str, directory: str) -> bool:
    """Is a path that of the directory, or below it? By their letters."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def _path(mounted: MountLine, root: str) -> str | None:
    """Return where a mount of the host shows what has this path in the file system."""
    if root.endswith("//deleted"):  # it has no name any more
        return None
    if not is_within(root, mounted.root):
        return None
    rest = root[len(mounted.root.rstrip("/")) :]
    return (mounted.point.rstrip("/") + rest).rstrip("/") or "/"


def _by_device(table: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for line in table.split(b"\n"):
        fields = line.split(b" ", 3)
        if len(fields) == 4:
            found.setdefault(fields[2], []).append(line)
    return found
