"""The C library through ctypes: one translator from errno to OSError."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)


def function(name: str, restype: Any, *argtypes: Any) -> Callable[..., int]:
    """Return the libc function `name`, which raises OSError where it returns -1."""
    bound = getattr(_libc, name)
    bound.argtypes = argtypes
    bound.restype = restype

    def call(*arguments: Any, about: str | bytes | None = None) -> int:
        result: int = bound(*arguments)
        if result == -1:
            raise error(about)
        return result

    return call


def posix_function(name: str, *argtypes: Any) -> Callable[..., None]:
    """Return a libc function that returns an errno instead of setting it, as posix_spawn(3) does.

    It raises OSError where that is not 0. Raises AttributeError when this libc lacks it.
    """
    bound = getattr(_libc, name)
    bound.argtypes = argtypes
    bound.restype = ctypes.c_int

    def call(*arguments: Any, about: str | None = None) -> None:
        if number := bound(*arguments):
            raise OSError(number, os.strerror(number), about)

    return call


def error(about: str | bytes | None = None) -> OSError:
    """Return the OSError of ctypes' errno; `about` names the file, as ``OSError.filename``."""
    errno = ctypes.get_errno()
    return OSError(errno, os.strerror(errno), about) if about else OSError(errno, os.strerror(errno))


# Variadic: every argument is widened to a long, as the kernel takes it.
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: Any, about: str | bytes | None = None) -> int:
    """Call a system call that this C library may not have a wrapper for."""
    result: int = _syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        raise error(about)
    return result
