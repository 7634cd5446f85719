"""The file system as the held caller sees it: its root, its working directory."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from startgate.errors import BundleError, NotReadable
from startgate.gates.program import Programs
from startgate.kernel import files, layers, pipe
from startgate.kernel.process import Proc
from startgate.kernel.trusted import TrustedFiles
from startgate.kernel.walk import Walk
from startgate.runtimes import oci

_SELF = "/proc/self"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY
# Decoding 16 MiB takes 150 MB: large ones take turns, so that many at once cost no more than one.
_TURN_WAIT = 1.0
_turn = threading.Semaphore()

# Everyone reads files there all the time, or they are no place for a pid file at all.
_SHARED_DIRECTORIES = (
    *("/etc/", "/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"),
    *("/boot/", "/dev/", "/proc/", "/sys/"),
)


class View:
    """Owns an fd of a process's root directory. On a worker: all may wait."""

    def __init__(self, proc: Proc, tid: int | None, parent: int = 0) -> None:
        """See what `tid` sees (None: what the host does); `parent` is the runtime's.

        Raises NotReadable when the task is gone.
        """
        self._proc = proc
        self._parent = parent
        self._trusted: TrustedFiles | None = None
        self._process = f"{proc.root}/{tid}" if tid else _SELF
        if tid is None:
            self.root, self.cwd = os.open(proc.host, os.O_PATH | os.O_CLOEXEC), "/"
            self._walk = Walk(self.root, self._process, proc.host)
            self._above = proc.host
            return
        base = f"{proc.root}/{tid}"
        try:
            self.root = os.open(f"{base}/root", os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise NotReadable(f"the caller {tid} is gone") from error
        try:
            cwd, root = os.readlink(f"{base}/cwd"), os.readlink(f"{base}/root")
        except OSError as error:
            os.close(self.root)
            raise NotReadable(f"the caller {tid} is gone") from error
        # Both links are told from our root: below a chroot, cut what the caller can't see.
        inside = root != "/" and f"{cwd}/".startswith(f"{root}/")
        self.cwd = "/" + cwd[len(root) :].lstrip("/") if inside else cwd
        self._walk = Walk(self.root, self._process, proc.host)
        self._above = root

    def absolute(self, path: str, base: str | None = None) -> str:
        """Resolve against `base`, or the caller's working directory, as the kernel does: what is before
        a `..` may be a link."""
        path = posixpath.join(base or self.cwd, path)
        before, up, rest = path.rpartition("/..")
        if not up or not (rest == "" or rest.startswith("/")):
            return posixpath.normpath(path)
        real = self._real(before + up)
        return posixpath.normpath(posixpath.join(real, rest.lstrip("/"))) if real else path

    def by_letters(self, path: str) -> str:
        """Resolve against the caller's working directory by the letters only, as Go's filepath.Abs does."""
        return posixpath.normpath(posixpath.join(self.cwd, path))

    def _real(self, path: str) -> str | None:
        """Return where a path leads, as the caller names it; None: nowhere."""
        try:
            with _opened(self._walk.open(path)) as fd:
                return self._named(fd)
        except OSError:
            return None

    def _named(self, fd: int) -> str:
        real, above = os.readlink(f"/proc/self/fd/{fd}"), self._above.rstrip("/")
        return (real.removeprefix(above) or "/") if f"{real}/".startswith(f"{above}/") else real

    def place(self, path: str) -> str | None:
        """Return what a path leads to, under one name for all who see it: the host's path, where that
        leads there as well, else the device, and the path in its file system. It need not exist."""
        fd, rest = self._nearest(path)
        with _opened(fd):
            here = self._position(fd, rest)
            seen = posixpath.normpath(posixpath.join(self._named(fd), rest))
        with View(self._proc, None) as host:
            fd, rest = host._nearest(seen)
            with _opened(fd):
                return seen if here and here == host._position(fd, rest) else here

    def _position(self, fd: int, rest: str) -> str | None:
        """In a chroot the mount table does not show the mount that its root is on; ours may."""
        own = self._process != _SELF and layers.position(
            fd, self._named(fd), rest, f"{self._process}/mountinfo"
        )
        return own or layers.position(fd, os.readlink(f"{_SELF}/fd/{fd}"), rest, f"{_SELF}/mountinfo")

    def _nearest(self, path: str) -> tuple[int, str]:
        """Open what exists of a path; return an fd, and the rest."""
        rest = ""
        while True:
            try:
                return self._walk.open(path), rest
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR) or path in ("/", ""):
                    raise
            path, name = posixpath.split(path.rstrip("/"))
            path, rest = path or "/", posixpath.join(name, rest)

    def read(self, path: str, limit: int) -> bytes:
        """Read a regular file. Raises OSError: EFBIG where it is larger than `limit`."""
        fd, status = self._walk.open_regular(path)
        try:
            if status.st_size > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
            return files.read_whole(fd, path, limit)
        finally:
            os.close(fd)

    def peek(self, path: str) -> bytes | None:
        """Return what is in a pipe, and leave it there; None where the path leads to none. Raises OSError."""
        fd = self._walk.open(path)
        try:
            return pipe.peek(fd) if pipe.is_anonymous(fd) else None
        finally:
            os.close(fd)

    def read_small(self, path: str) -> bytes:
        """Read a file that is no longer than a config.json. Raises OSError."""
        return self.read(path, oci.CONFIG_LIMIT)

    def trusted_files(self) -> TrustedFiles:
        """Return the files there that root alone can have written, as engines' are. Closed with the view."""
        if self._trusted is None:
            self._trusted = TrustedFiles(self.root, self._process, self._proc.host)
        return self._trusted

    def caller_arguments(self) -> list[str]:
        """Return the command line of the runtime's parent; empty when it is gone."""
        return self._proc.command_line(self._parent)

    def peek_config(self, path: str) -> bytes | None:
        """Return the bytes of a config.json; None: it is large, or can't be read: `read_config` tells why."""
        try:
            return self.read(path, oci.LARGE)
        except OSError:
            return None

    def read_config(self, path: str, data: bytes | None = None) -> tuple[oci.Config, bytes]:
        """Decode a config.json, or the `data` that was peeked; return it, and its digest.

        Raises BundleError, which names the path.
        """
        try:
            if data is None:
                return self._read_config(path)
            return oci.decode_config(data), digest_of(data)
        except OSError as error:
            raise BundleError(f"{path} can't be read: {error.strerror}") from error
        except BundleError as error:
            raise BundleError(f"{path}: {error}") from error

    def _read_config(self, path: str) -> tuple[oci.Config, bytes]:
        try:
            data = self.read(path, oci.LARGE)
            return oci.decode_config(data), digest_of(data)
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
        if not _turn.acquire(timeout=_TURN_WAIT):
            raise BundleError(f"larger than {oci.LARGE} bytes, and others as large are being read")
        try:
            data = self.read(path, oci.CONFIG_LIMIT)
            return oci.decode_config(data), digest_of(data)
        finally:
            _turn.release()

    def digest(self, path: str) -> bytes | None:
        """Return the digest of a config.json as it is now; None: it can't be read."""
        try:
            return digest_of(self.read(path, oci.CONFIG_LIMIT))
        except OSError:
            return None

    def real_path(self, path: str) -> str | None:
        """Return where a path leads, as the host names it; None: nowhere, or not known."""
        try:
            real = self._walk.name(path)
        except OSError:
            return None
        return self._proc.on_host(real) if real else None

    def origin(self, path: str) -> str:
        """Return where a path leads, as the host names it, and where that is mounted first. Raises OSError:
        EXDEV where that can't be known."""
        return self._proc.on_host(self._walk.origin(path))

    def layers_of(self, path: str) -> list[str]:
        """Return the directories that show at a path because it is on an overlay: see Walk."""
        return self._walk.layers_of(path)

    def file_system_on(self, path: str) -> str | None:
        """Return where the file system on a block device is mounted, or the device: see Walk."""
        found = self._walk.file_system_on(path)
        return self._proc.on_host(found) if found else None

    def stat(self, path: str) -> os.stat_result | None:
        """Return the status of a file, None where there is none. Opens nothing but the path."""
        try:
            with _opened(self._walk.open(path)) as fd:
                return os.fstat(fd)
        except OSError:
            return None

    def namespace(self, path: str) -> int | None:
        """Return the inode number of the namespace at a path; None where it is none."""
        try:
            return _inode_of_namespace(self._walk.open(path))
        except OSError:
            return None

    def open_pid_directory(self, path: str) -> int:
        """Open the directory in which a pid file will be. Raises OSError, or BundleError
        where marking it would hold others: in the system's directories, and on file
        systems that may never answer."""
        found = self._walk.open(path)
        try:
            fd = os.open(f"/proc/self/fd/{found}", _DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(found)
        try:
            real = os.readlink(f"/proc/self/fd/{fd}")
            if real == "/" or f"{real}/".startswith(_SHARED_DIRECTORIES):
                raise BundleError(f"{path} is a directory of the system")
            if layers.is_remote(fd, self._process, self._proc.host):
                raise BundleError(f"{path} is on a network or FUSE file system")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_programs(self, bundle: str, config: oci.Config) -> list[int]:
        """Open (O_PATH) the files of which the container executes one first. Raises OSError or BundleError.

        None is on a file system that may not answer: who executes it would be held there.
        """
        process = config.process
        if not process or not process.args:
            raise BundleError("no process.args")
        found = []
        with Programs(self._walk, bundle, config) as programs:
            for fd in programs.find():
                if layers.is_remote(fd, self._process, self._proc.host):
                    os.close(fd)
                else:
                    found.append(fd)
        if not found:
            raise BundleError(f"{process.args[0]!r} is not found in the root file system")
        return found

    def has_the_root_of(self, other: View) -> bool:
        """Do both begin at the same directory?"""
        return os.path.sameopenfile(self.root, other.root)

    def close(self) -> None:
        """Close the fds: an open one keeps the caller's root busy."""
        if self._trusted:
            self._trusted.close()
        os.close(self.root)

    def __enter__(self) -> View:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def digest_of(data: bytes) -> bytes:
    """Return what tells a config.json from any other."""
    return hashlib.blake2b(data).digest()


@contextmanager
def _opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _inode_of_namespace(fd: int) -> int | None:
    """Return the inode number of a file of nsfs; closes it. Engines bind namespaces to files."""
    try:
        status = os.fstat(fd)
    finally:
        os.close(fd)
    return status.st_ino if status.st_dev == os.stat("/proc/self/ns/mnt").st_dev else None
