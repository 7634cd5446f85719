"""Starting programs from a process whose threads answer permission events.

The execve of our own child may be held too: it is a runtime, or the first program of a
container. It can be answered only while this process does not wait for it with the GIL in
its hands: then the reading threads, and the deadlines, would never run again.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress

from startgate.errors import NotReadable
from startgate.kernel import libc
from startgate.kernel.process import Proc, ProcessId

_SETSIGDEF, _SETSIGMASK, _SETSID = 0x04, 0x08, 0x80  # <spawn.h>
_ABOVE = 16  # above all fd numbers that a child is given

_Strings = ctypes.POINTER(ctypes.c_char_p)
_attributes_init = libc.posix_function("posix_spawnattr_init", ctypes.c_void_p)
_attributes_destroy = libc.posix_function("posix_spawnattr_destroy", ctypes.c_void_p)
_set_flags = libc.posix_function("posix_spawnattr_setflags", ctypes.c_void_p, ctypes.c_short)
_set_mask = libc.posix_function("posix_spawnattr_setsigmask", ctypes.c_void_p, ctypes.c_void_p)
_set_default = libc.posix_function("posix_spawnattr_setsigdefault", ctypes.c_void_p, ctypes.c_void_p)
_actions_init = libc.posix_function("posix_spawn_file_actions_init", ctypes.c_void_p)
_actions_destroy = libc.posix_function("posix_spawn_file_actions_destroy", ctypes.c_void_p)
_add_dup2 = libc.posix_function(
    "posix_spawn_file_actions_adddup2", ctypes.c_void_p, ctypes.c_int, ctypes.c_int
)
_spawn = libc.posix_function(
    "posix_spawn",
    ctypes.POINTER(ctypes.c_int),
    ctypes.c_char_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    _Strings,
    _Strings,
)
_sigfillset = libc.function("sigfillset", ctypes.c_int, ctypes.c_void_p)


def start(
    command: Sequence[str], environment: Mapping[str, str], files: Sequence[int], directory: str = "/"
) -> int:
    """Start a program in a session of its own, in a directory; return its pid, which the caller reaps.

    `command[0]` is a path. `files` become its fds 0, 1, 2, ...; it has no others. All
    signals have their default disposition and none is blocked. Waits until the execve is
    done, without the GIL; raises its OSError.
    """
    spares = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for fd in files]
    attributes, actions = ctypes.create_string_buffer(1024), ctypes.create_string_buffer(1024)
    if HOOKS in environment:
        _in_use.set()
    _attributes_init(attributes)
    _actions_init(actions)
    pid = ctypes.c_int()
    try:
        _reset_signals(attributes)
        for number, fd in enumerate(spares):
            _add_dup2(actions, fd, number)
        _add_chdir(actions, os.fsencode(directory))
        _add_closefrom(actions, len(files))
        words, variables = _strings(command), _strings([f"{k}={v}" for k, v in environment.items()])
        _spawn(
            ctypes.byref(pid),
            os.fsencode(command[0]),
            actions,
            attributes,
            words,
            variables,
            about=command[0],
        )
    finally:
        _actions_destroy(actions)
        _attributes_destroy(attributes)
        for fd in spares:
            os.close(fd)
    _remember(pid.value, environment.get(HOOKS, ""))
    return pid.value


HOOKS = "STARTGATE_HOOKS"
"""An environment variable: the names of the hooks whose work a process does, a line each."""

_started: OrderedDict[int, tuple[ProcessId, str]] = OrderedDict()
_in_use = threading.Event()
"""Set before the first hook starts: what it does may come sooner than its pid."""
_REMEMBERED, _GENERATIONS = 4096, 64


def _remember(pid: int, hooks: str) -> None:
    with suppress(NotReadable):  # it has ended already
        _started[pid] = Proc().identify(pid), hooks
    if len(_started) > _REMEMBERED:
        _started.popitem(last=False)


def hooks_behind(proc: Proc, pid: int) -> tuple[str, ...]:
    """Return the names of the hooks of ours that led to this process: told by its ancestors, or by its
    environment where they are gone. Costs nothing while there was none.

    An engine's daemon in between hides them.
    """
    if not _in_use.is_set():
        return ()
    try:
        return tuple((_ancestral(proc, pid) or proc.environment(pid).get(HOOKS, "")).split("\n")[:-1])
    except NotReadable:
        return ()


def _ancestral(proc: Proc, pid: int) -> str:
    for _ in range(_GENERATIONS):
        known, hooks = _started.get(pid, (None, ""))
        if known and known == proc.identify(pid):
            return hooks
        if (pid := proc.stat(pid).ppid) <= 1:
            break
    return ""


def _reset_signals(attributes: ctypes.Array[ctypes.c_char]) -> None:
    signals = ctypes.create_string_buffer(128)  # sigset_t
    _set_mask(attributes, signals)
    _sigfillset(signals)
    _set_default(attributes, signals)
    _set_flags(attributes, _SETSID | _SETSIGMASK | _SETSIGDEF)


# Extensions: musl has no closefrom; then the child gets what was opened without O_CLOEXEC.
_add_chdir = libc.posix_function("posix_spawn_file_actions_addchdir_np", ctypes.c_void_p, ctypes.c_char_p)
try:
    _add_closefrom = libc.posix_function(
        "posix_spawn_file_actions_addclosefrom_np", ctypes.c_void_p, ctypes.c_int
    )
except AttributeError:  # glibc < 2.34

    def _add_closefrom(*_: object) -> None:
        return None


def _strings(words: Sequence[str]) -> ctypes.Array[ctypes.c_char_p]:
    encoded = [os.fsencode(word) for word in words]
    return (ctypes.c_char_p * (len(encoded) + 1))(*encoded)


def keep_gil_free() -> None:
    """Keep `subprocess`, in this process, from waiting for an execve with the GIL held.

    It does where it uses posix_spawn, and before Python 3.11.4 where it uses vfork. Both
    switches are documented; with them off it forks, and waits without the GIL.
    """
    subprocess._USE_POSIX_SPAWN = False  # type: ignore[misc]
    if sys.version_info < (3, 11, 4):
        subprocess._USE_VFORK = False  # type: ignore[misc]
