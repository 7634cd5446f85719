"""Reading files of users, who may serve file systems themselves (FUSE).

A request that a FUSE server has taken and never answers can't be given up, not even by SIGKILL: our
process would keep its fanotify groups, and all that they hold, for ever. So no file system is asked
anything before its mount is known to be a local one. To come upon a mount asks nothing: a path walk
with O_PATH ends at the root of a mount without looking at it (path_resolution(7)), and /proc tells
the mount of such an fd.
"""

from __future__ import annotations

import errno
import os
import stat

from startgate.kernel import files
from startgate.kernel.layers import find_mount, mount_id

# What a disk or memory of this host answers. No overlay: its layers may be anything.
LOCAL = frozenset("bcachefs btrfs ext2 ext3 ext4 f2fs jfs ramfs reiserfs tmpfs xfs zfs".split())
_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class LocalFiles:
    """The regular files of one user below a root directory. No link is followed, nor `..`."""

    def __init__(self, root: str, owner: int, process: str = "/proc/self") -> None:
        """`root` is where the host's root directory is mounted: that may be any file system. Or it is that
        of another process, whose directory in /proc `process` is.
        """
        self._owner = owner
        self._mounts = f"{process}/mountinfo"
        self._root = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._databases: dict[str, int] = {}

    def read(self, path: str, limit: int) -> bytes:
        """Raises OSError: EPERM where it is not the user's, EXDEV where it is not local,
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
        if path not in self._databases:
            self._databases[path] = self._open(path)
        return os.pread(self._databases[path], size, offset)

    def stat(self, path: str) -> os.stat_result:
        """Return the status of what a path leads to, whosever it is. Raises OSError."""
        fd = self._find(path)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def _open(self, path: str) -> int:
        found = self._find(path)
        try:
            status = os.fstat(found)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "not a regular file", path)
            if status.st_uid != self._owner:
                raise OSError(errno.EPERM, f"owned by uid {status.st_uid}", path)
            # O_NONBLOCK: its owner may hold a lease on it (fcntl(2))
            return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(found)

    def _find(self, path: str) -> int:
        """Walk to a file, a step at a time; each is on a local file system, or OSError is raised."""
        if "\0" in path or ".." in path.split("/"):
            raise OSError(errno.EINVAL, "not a plain path", path)
        at = os.dup(self._root)
        mount = mount_id(at)
        try:
            for name in filter(None, path.split("/")):
                below = os.open(name, _STEP, dir_fd=at)
                os.close(at)
                at = below
                mount = self._expect_local(at, mount, path)
        except BaseException:
            os.close(at)
            raise
        return at

    def _expect_local(self, fd: int, before: int, path: str) -> int:
        """Return the mount of an fd: `before`, or a local one. Raises OSError (EXDEV)."""
        mount = mount_id(fd)
        if mount and mount == before:
            return mount
        found = find_mount(self._mounts, id=mount)
        if found is None or (found.kind not in LOCAL and found.device != self._device()):
            kind = found.kind if found else "unknown"
            raise OSError(errno.EXDEV, f"on a file system that may not answer ({kind})", path)
        return mount

    def _device(self) -> str | None:
        """The root directory's file system, be it what it may: all depends on it anyway."""
        root = find_mount(self._mounts, id=mount_id(self._root))
        return root.device if root else None

    def close(self) -> None:
        """Close the root directory, and databases."""
        for fd in (self._root, *self._databases.values()):
            os.close(fd)

    def __enter__(self) -> LocalFiles:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
