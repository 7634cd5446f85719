"""Files in memory: memfd_create(2)."""

from __future__ import annotations

import ctypes
import errno

from startgate.kernel import libc

_MFD_CLOEXEC = 1
_MFD_EXEC = 0x10
# Of the C library that is there: an interpreter that was built with an old one's headers, as
# python-build-standalone's is, has no os.memfd_create.
_memfd_create = libc.function("memfd_create", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def create(name: str) -> int:
    """Return a new file; the caller owns it, and no child inherits it. Raises OSError."""
    return _memfd_create(name.encode(), _MFD_CLOEXEC)


def create_program(name: str) -> int:
    """Return one that may be executed, also where vm.memfd_noexec says that others may not."""
    try:
        return _memfd_create(name.encode(), _MFD_CLOEXEC | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return create(name)  # Linux before 6.3
