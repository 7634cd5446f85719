"""Files in memory: memfd_create(2)."""

from __future__ import annotations

import ctypes

from startgate.kernel import libc

_MFD_CLOEXEC = 1
# Of the C library that is there: an interpreter that was built with an old one's headers, as
# python-build-standalone's is, has no os.memfd_create.
_memfd_create = libc.function("memfd_create", ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


def create(name: str) -> int:
    """Return a new file; the caller owns it, and no child inherits it. Raises OSError."""
    return _memfd_create(name.encode(), _MFD_CLOEXEC)
