"""Which process is a container's init? Told by proof, never by the first guess."""

from __future__ import annotations

import logging
import os
import posixpath
import time
from collections.abc import Iterator, Sequence

from startgate.errors import NotReadable
from startgate.foreign import UNDECODABLE
from startgate.hold import Hold
from startgate.kernel import namespaces
from startgate.kernel.local import LocalFiles
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry
from startgate.runtimes import state

log = logging.getLogger(__name__)

_PID_FILE_LIMIT = 32
_USERS_FILE_LIMIT = 1 << 20
_GENERATIONS = 3
# `crun run --detach` may have left by the time of the first exec, and its child not have
# written the state yet: it does while the init is held.
_PAUSES = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def by_state(proc: Proc, entry: Entry) -> ProcessId | None:
    """Return the process that the runtime's state directory names. On a worker."""
    root = os.open(proc.host, os.O_PATH | os.O_CLOEXEC)
    try:
        kind = entry.flavour
        places = [entry.key.root]
        if kind is state.CRUN and entry.invocation.root is None:
            places.append(state.CRUN_OF_LOGIN)
        for place in places:
            init = state.init(proc, root, place, entry.key.id, kind)
            if init and _is_newer(init, entry):
                return init
    finally:
        os.close(root)
    return None


def by_users_files(proc: Proc, entry: Entry) -> ProcessId | None:
    """Return the init of a user's container, as the user's files name it.

    It must be younger than its runtime, and in a user namespace that the same user made.
    """
    with LocalFiles(proc.host, entry.key.uid) as files:
        for pid, start in _named(files, entry):
            try:
                init = proc.identify(pid)
                owner = namespaces.owner_of_user_namespace(f"{proc.root}/{pid}/ns/user")
            except (NotReadable, OSError):
                continue
            if owner == entry.key.uid and start in (0, init.start_time) and _is_newer(init, entry):
                return init
    return None


def _named(files: LocalFiles, entry: Entry) -> Iterator[tuple[int, int]]:
    """Yield (pid, start time or 0) that the pid file and the runtime's state name."""
    call, kind = entry.invocation, entry.flavour
    try:
        data = files.read(call.pid_file, _PID_FILE_LIMIT).strip() if call.pid_file else b""
        if data.isdigit():
            yield int(data), 0
    except OSError:
        pass
    root = call.root or f"/run/user/{entry.key.uid}/{kind.name}"
    try:
        if "/" not in call.id:
            path = posixpath.join(root, call.id, kind.file)
            found = state.decode(files.read(path, _USERS_FILE_LIMIT), kind)
            yield found.pid, found.start
    except (OSError, *UNDECODABLE):
        pass


def _is_newer(init: ProcessId, entry: Entry) -> bool:
    """Did the process start after the runtime did? Else it is of another start of that id."""
    return init.start_time >= entry.runtime.start_time


def by_pid_file(proc: Proc, entry: Entry, hold: Hold) -> ProcessId | None:
    """Return the process that the file names whose reader is held.

    It is read through the event's own fd, which raises no event. Raises Released.
    """
    with hold.fd() as fd:
        data = os.pread(fd, _PID_FILE_LIMIT + 1, 0) if os.fstat(fd).st_uid == 0 else b""
    try:
        if len(data) <= _PID_FILE_LIMIT and data.strip().isdigit():
            init = proc.identify(int(data))
            if _is_newer(init, entry):
                return init
    except NotReadable:
        log.debug("container %s: process %r is gone", entry.container.id, data)
    log.warning("container %s: its pid file holds %r, not its init: ignored", entry.container.id, data)
    return None


def by_exec(proc: Proc, entries: Sequence[Entry], pid: int) -> Entry | None:
    """Return the container whose init the process `pid` is, which executes a first program.

    Others execute the same inode too: hooks, `exec`s, other containers. On a worker.
    """
    for entry in entries:
        if entry.container.pid == pid:
            return entry
    unknown = [entry for entry in entries if entry.container.pid is None]
    ancestors = _ancestors_outside(proc, pid) if unknown else []
    for entry in unknown:
        if entry.runtime.pid in ancestors:
            return entry
    for pause in _PAUSES if ancestors else (0,):
        time.sleep(pause)
        for entry in unknown:
            if (init := by_state(proc, entry)) and init.pid == pid:
                return entry
    return None


def _ancestors_outside(proc: Proc, pid: int) -> list[int]:
    """Return the nearest ancestors of a process that is the first of its mount namespace.

    The hooks of config.json descend from the runtime too, but they share a mount
    namespace with their parent: the runtime, or the init. `crun run --detach` forks
    once more before it makes the container.
    """
    ancestors: list[int] = []
    try:
        parent = proc.stat(pid).ppid
        if proc.namespace(pid, "mnt") == proc.namespace(parent, "mnt"):
            return []
        while parent > 1 and len(ancestors) < _GENERATIONS:
            ancestors.append(parent)
            parent = proc.stat(parent).ppid
    except NotReadable:
        pass
    return ancestors
