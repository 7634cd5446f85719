"""A bundle's config.json, replaced in one step. On a worker: all of it may wait.

Only root's: a file that others may write, or could put there, is left alone. The old file
stays whole until the new one, written beside it, takes its name.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import posixpath
import secrets
import stat
from collections.abc import Callable

from startgate.kernel import files
from startgate.policy.patch import PatchError

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_MARK = "trusted.startgate.patched"
"""Set by CAP_SYS_ADMIN only: what made this file of another. Makes patching again harmless."""


class ConfigFile:
    """Owns an fd of the bundle's directory and one of the file."""

    def __init__(self, root: int, path: str, limit: int) -> None:
        """Open it as a process would whose root directory is the fd `root`.

        Raises PatchError: it can't be opened, or is not root's alone.
        """
        directory, self._name = posixpath.split(path)
        self._path = path
        try:
            self._directory = files.open_in_root(root, directory, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise PatchError(f"{directory}: {error.strerror}") from error
        try:
            self._check(self._directory, directory)
            self._file = self._open()
            try:
                self._check(self._file, path)
                self._before = os.fstat(self._file)
                self.data = self._read(limit)
            except BaseException:
                os.close(self._file)
                raise
        except BaseException:
            os.close(self._directory)
            raise

    def is_made_by(self, patches: bytes) -> bool:
        """Was this very content written by `replace` with the same patches?"""
        try:
            return os.getxattr(self._file, _MARK) == _digest(self.data, patches)
        except OSError:
            return False

    def replace(self, data: bytes, patches: bytes, may: Callable[[], bool]) -> bool:
        """Put `data` in the file's place, with its owner, mode and attributes.

        `may` is asked right before; False: it refused, and nothing was changed. Raises PatchError.
        """
        name = f".{self._name}.startgate-{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self._directory)
        except OSError as error:
            raise PatchError(f"{self._path} can't be replaced: {error.strerror}") from error
        try:
            self._write(fd, data, patches)
            done = self._is_unchanged() and may()
            if done:
                os.rename(name, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
                name = ""
        except OSError as error:
            raise PatchError(f"{self._path} can't be replaced: {error.strerror}") from error
        finally:
            os.close(fd)
            if name:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=self._directory)
        return done

    def close(self) -> None:
        """Close the fds."""
        os.close(self._file)
        os.close(self._directory)

    def __enter__(self) -> ConfigFile:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._name, flags, dir_fd=self._directory)
        except OSError as error:
            why = "a symbolic link" if error.errno == errno.ELOOP else error.strerror
            raise PatchError(f"{self._path}: {why}") from error
        if not files.is_regular(fd):
            os.close(fd)
            raise PatchError(f"{self._path}: not a regular file")
        return fd

    def _check(self, fd: int, path: str) -> None:
        status = os.fstat(fd)
        if status.st_uid != 0:
            raise PatchError(f"{path} belongs to uid {status.st_uid}, not to root")
        if status.st_mode & _WRITABLE_BY_OTHERS:
            raise PatchError(f"{path} may be written by others than root")
        if files.is_foreign(fd):
            raise PatchError(f"{path} is on a network or FUSE file system")

    def _read(self, limit: int) -> bytes:
        with os.fdopen(os.dup(self._file), "rb") as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise PatchError(f"{self._path}: larger than {limit} bytes")
        return data

    def _write(self, fd: int, data: bytes, patches: bytes) -> None:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        os.fchown(fd, self._before.st_uid, self._before.st_gid)
        os.fchmod(fd, stat.S_IMODE(self._before.st_mode))
        with contextlib.suppress(OSError):  # ENOTSUP: a file system that has none
            for attribute in os.listxattr(self._file):
                os.setxattr(fd, attribute, os.getxattr(self._file, attribute))
            os.setxattr(fd, _MARK, _digest(data, patches))
        os.fsync(fd)

    def _is_unchanged(self) -> bool:
        """Raises PatchError: somebody else has written the file meanwhile."""
        now = os.stat(self._name, dir_fd=self._directory, follow_symlinks=False)
        if (now.st_dev, now.st_ino, now.st_mtime_ns, now.st_size) != (
            self._before.st_dev,
            self._before.st_ino,
            self._before.st_mtime_ns,
            self._before.st_size,
        ):
            raise PatchError(f"{self._path} was changed by somebody else meanwhile")
        return True


def _digest(data: bytes, patches: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(data).digest() + patches).hexdigest().encode()
