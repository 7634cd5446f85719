"""Reading files that nobody but root can have made, on file systems that answer.

What an engine wrote down of a container decides which rules bind it. So each step of the path
to such a file, links included, belongs to root and can be changed by nobody else; a sticky
directory (/tmp) may lie on the way, as what root has in there is safe. No file system is asked
anything before its mount is known to be local: see `kernel.local`, which reads users' files.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from typing import NamedTuple

from startgate.kernel import files, layers
from startgate.kernel.local import LOCAL

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as the kernel's (path_resolution(7))


class _Place(NamedTuple):
    fd: int
    mount: int


class TrustedFiles:
    """The regular files of root below a root directory. Links are followed, and stay below it."""

    def __init__(self, root: int, process: str, host: str, owner: int = 0) -> None:
        """`root` is an fd of that directory; `process` the /proc directory of one that sees its mounts,
        `host` where the host's root directory is mounted; `owner` is root, but in tests.
        """
        self._root = os.dup(root)
        self._process = process
        self._host = host
        self._owner = owner
        self._kept: dict[str, int] = {}

    def read(self, path: str, limit: int) -> bytes:
        """Raises OSError: EPERM where others could have written it, EXDEV where it is not local,
        EINVAL where it is no regular file, EFBIG where it is larger than `limit`."""
        fd = self._open(path)
        try:
            return files.read_whole(fd, path, limit)
        finally:
            os.close(fd)

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        """Read `size` bytes at `offset`; fewer at the file's end. Raises OSError as `read` does.

        The file stays open: of a database it takes a dozen.
        """
        if path not in self._kept:
            self._kept[path] = self._open(path)
        return os.pread(self._kept[path], size, offset)

    def _open(self, path: str) -> int:
        found = self._find(path)
        try:
            if not files.is_regular(found):
                raise OSError(errno.EINVAL, "not a regular file", path)
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(found)

    def _find(self, path: str) -> int:
        """Walk to a file, a step at a time, and return an fd of it (O_PATH)."""
        if "\0" in path:
            raise OSError(errno.EINVAL, "a NUL character in a path", path)
        way = [_Place(os.dup(self._root), layers.mount_id(self._root))]
        todo, links = deque(path.split("/")), 0
        try:
            while todo:
                link = self._step(way, todo.popleft(), path)
                if link is None:
                    continue
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, "too many symbolic links", path)
                todo.extendleft(reversed(link.split("/")))
                if link.startswith("/"):
                    _go_back(way, 1)
            return os.dup(way[-1].fd)
        finally:
            _go_back(way, 0)

    def _step(self, way: list[_Place], name: str, path: str) -> str | None:
        """Go to `name`; where that is a link, stay, and return where it leads."""
        if name in ("", "."):
            return None
        if name == "..":
            _go_back(way, max(len(way) - 1, 1))
            return None
        fd = os.open(name, _STEP, dir_fd=way[-1].fd)
        try:
            mount = self._expect_local(fd, way[-1].mount, path)
            status = os.fstat(fd)
            self._expect_owned(status, path)
            if stat.S_ISLNK(status.st_mode):
                return os.readlink("", dir_fd=fd)
            way.append(_Place(os.dup(fd), mount))
            return None
        finally:
            os.close(fd)

    def _expect_local(self, fd: int, before: int, path: str) -> int:
        """Return the mount of an fd: `before`, or a local one. Raises OSError (EXDEV)."""
        mount = layers.mount_id(fd)
        if mount and mount == before:
            return mount
        found = layers.find_mount(f"{self._process}/mountinfo", id=mount)
        kind = found.kind if found else "unknown"
        local = kind in LOCAL or (kind == "overlay" and not layers.is_remote(fd, self._process, self._host))
        if not local:
            raise OSError(errno.EXDEV, f"on a file system that may not answer ({kind})", path)
        return mount

    def _expect_owned(self, status: os.stat_result, path: str) -> None:
        """Raises OSError (EPERM): somebody else could have put it there, or can change it."""
        if status.st_uid != self._owner:
            raise OSError(errno.EPERM, f"owned by uid {status.st_uid}, not by root", path)
        mode = status.st_mode
        if stat.S_ISLNK(mode) or (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
            return
        if mode & stat.S_IWOTH or (mode & stat.S_IWGRP and status.st_gid != 0):
            raise OSError(errno.EPERM, "not writable by root alone", path)

    def close(self) -> None:
        """Close the root directory, and what stayed open."""
        for fd in (self._root, *self._kept.values()):
            os.close(fd)


def _go_back(way: list[_Place], length: int) -> None:
    while len(way) > length:
        os.close(way.pop().fd)
