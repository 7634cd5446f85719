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

from startgate.kernel import libc

_NR_OPENAT2 = 437  # the same on every architecture
_RESOLVE_IN_ROOT = 0x10
_CHUNK = 1 << 16

# statfs(2) f_type of file systems that ask another process or host to answer
_FOREIGN = frozenset(
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
    """
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT)
    return libc.syscall(
        _NR_OPENAT2,
        ctypes.c_long(root),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_char_p(how),
        ctypes.c_long(len(how)),
        about=path,
    )


def open_regular(root: int, path: str) -> int:
    """Open a regular file for reading; follows links. Raises OSError (EINVAL: not regular)."""
    fd = open_in_root(root, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(fd)


def read_regular(root: int, path: str, limit: int) -> bytes:
    """Read a regular file of at most `limit` bytes. Raises OSError (EFBIG: larger)."""
    fd = open_regular(root, path)
    try:
        data = bytearray()
        while chunk := os.read(fd, _CHUNK):
            data += chunk
            if len(data) > limit:
                raise OSError(errno.EFBIG, f"larger than {limit} bytes", path)
        return bytes(data)
    finally:
        os.close(fd)


class _Statfs(ctypes.Structure):
    _fields_ = (("f_type", ctypes.c_long), ("rest", ctypes.c_long * 31))


_fstatfs = libc.function("fstatfs", ctypes.c_int, ctypes.c_int, ctypes.POINTER(_Statfs))


def is_foreign(fd: int) -> bool:
    """Does the file's file system depend on another process or host to answer?

    Reading a fanotify event opens the file: on such a file system that may wait for
    ever, so nothing there is marked.
    """
    buffer = _Statfs()
    _fstatfs(fd, ctypes.byref(buffer))
    return (buffer.f_type & 0xFFFF_FFFF) in _FOREIGN


def is_program(fd: int) -> bool:
    """Is it a regular file that somebody may execute? Works with O_PATH."""
    mode = os.fstat(fd).st_mode
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def is_regular(fd: int) -> bool:
    """Is it a regular file? Works with O_PATH."""
    return stat.S_ISREG(os.fstat(fd).st_mode)
