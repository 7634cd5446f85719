"""Opening files that someone else names.

A path from a command line may lead to a FIFO, a device, a directory, or a file system
whose server never answers. `open_regular` takes regular files only and blocks on none
of the others; a file system that hangs still hangs it: call it on a worker.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import sys

from startgate.kernel import libc

_NR_OPENAT2 = 437  # the same on every architecture
_RESOLVE_IN_ROOT = 0x10
_RESOLVE_CACHED = 0x20
_CHUNK = 1 << 16

# statfs(2) f_type of file systems that ask another process or host to answer
OVERLAY = 0x794C7630
FOREIGN = frozenset(
    {
        0x65735546,  # FUSE
        0x6969,  # NFS
        0xFF534D42,  # CIFS
        0xFE534D42,  # SMB2
        0x517B,  # SMB
        0x01021997,  # 9p
        0x00C36400,  # Ceph
        0x5346414F,  # AFS
        0x73757245,  # Coda
    }
)


def open_in_root(root: int, path: str, flags: int) -> int:
    """Open `path` as a process would whose root directory is the fd `root`.

    Symbolic links, absolute ones too, stay below that root (openat2(2), Linux 5.6).
    Raises OSError: EINVAL for a NUL, which JSON may hold, and at which the kernel would stop reading.
    """
    return _openat2(root, path, flags, _RESOLVE_IN_ROOT)


def open_cached(root: int, path: str) -> int:
    """As `open_in_root`, with O_PATH, by what the kernel has cached: no file system is asked.

    Raises OSError: EAGAIN where it is not cached, EINVAL before Linux 5.12.
    """
    return _openat2(root, path, os.O_PATH, _RESOLVE_IN_ROOT | _RESOLVE_CACHED)


def _openat2(root: int, path: str, flags: int, resolve: int) -> int:
    if "\0" in path:
        raise OSError(errno.EINVAL, "a NUL character in a path", path)
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    return libc.syscall(
        _NR_OPENAT2,
        ctypes.c_long(root),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_char_p(how),
        ctypes.c_long(len(how)),
        about=path,
    )


_statx = libc.function(
    "statx", ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p
)
_AT_EMPTY_PATH, _AT_STATX_DONT_SYNC = 0x1000, 0x4000
_STX_DEV_MAJOR = 136  # in struct statx


def is_on_block_device(fd: int) -> bool:
    """Is the file on a disk of this host? Asks no server: those of FUSE and of networks have no major number.

    It may be False where it could be True (btrfs).
    """
    buffer = ctypes.create_string_buffer(256)
    _statx(fd, b"", _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC, 0, buffer)
    return int.from_bytes(buffer.raw[_STX_DEV_MAJOR : _STX_DEV_MAJOR + 4], sys.byteorder) != 0


def open_regular(root: int, path: str) -> tuple[int, os.stat_result]:
    """Open a regular file for reading; follows links. Raises OSError (EINVAL: not regular)."""
    fd = open_in_root(root, path, os.O_PATH)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), status
    finally:
        os.close(fd)


def read_regular(root: int, path: str, limit: int, *, owner: int | None = None) -> bytes:
    """Read a regular file of at most `limit` bytes, which must be `owner`'s if that is given.

    Raises OSError (EFBIG: larger, EPERM: somebody else's).
    """
    fd, status = open_regular(root, path)
    try:
        if owner is not None and status.st_uid != owner:
            raise OSError(errno.EPERM, f"owned by uid {status.st_uid}", path)
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        return read_whole(fd, path, limit)
    finally:
        os.close(fd)


def read_whole(fd: int, path: str, limit: int) -> bytes:
    """Read what is left of a file; `path` is for the error. Raises OSError: EFBIG beyond `limit`."""
    data = bytearray()
    while chunk := os.read(fd, min(_CHUNK, limit + 1 - len(data))):
        data += chunk
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
    return bytes(data)


def append_to_regular(root: int, path: str, data: bytes, instead_of: bytes) -> None:
    """Append to a regular file as root's own log; it is made if there is none.

    If all that it holds is one line that begins with `instead_of`, that is replaced.

    Only in a directory that root owns and not everyone may write to; no link is followed
    in its last part, and nothing but a regular file on a local file system is opened.
    Raises OSError.
    """
    directory = open_in_root(root, os.path.dirname(path) or "/", os.O_PATH | os.O_DIRECTORY)
    try:
        status = os.fstat(directory)
        if status.st_uid != 0 or status.st_mode & stat.S_IWOTH:
            raise OSError(errno.EPERM, "not in a directory of root's alone", path)
        if is_foreign(directory):
            raise OSError(errno.EINVAL, "on a network or FUSE file system", path)
        fd = _open_or_create(directory, os.path.basename(path))
    finally:
        os.close(directory)
    try:
        before = os.pread(fd, 1 << 16, 0)
        if before.startswith(instead_of) and before.find(b"\n") == len(before) - 1:
            os.ftruncate(fd, 0)
        os.write(fd, data)
    finally:
        os.close(fd)


def _open_or_create(directory: int, name: str) -> int:
    """Open for appending. What exists is looked at first: to open a device can do things."""
    flags = os.O_RDWR | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    except FileNotFoundError:
        return os.open(name, flags | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    try:
        if not is_regular(found) or is_foreign(found):
            raise OSError(errno.EINVAL, "not a regular file of a local file system", name)
        return os.open(f"/proc/self/fd/{found}", flags)
    finally:
        os.close(found)


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31))


_fstatfs = libc.function("fstatfs", ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Statfs))


def is_foreign(fd: int) -> bool:
    """Does the file's file system depend on another process or host to answer?

    Reading a fanotify event opens the file: on such a file system that may wait for
    ever, so nothing there is marked.
    """
    return type_of(fd) in FOREIGN


def type_of(fd: int) -> int:
    """Return the type of a file's file system: f_type of statfs(2)."""
    buffer = _Statfs()
    _fstatfs(fd, ctypes.byref(buffer))
    return int(buffer.f_type) & 0xFFFF_FFFF


def is_program(fd: int) -> bool:
    """Is it a regular file that somebody may execute? Works with O_PATH."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def is_regular(fd: int) -> bool:
    """Is it a regular file? Works with O_PATH."""
    return stat.S_ISREG(os.fstat(fd).st_mode)
