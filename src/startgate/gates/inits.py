"""Which process is a container's init? Told by proof, never by the first guess."""

from __future__ import annotations

import logging
import os
import posixpath
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress

from startgate.errors import NotReadable
from startgate.foreign import UNDECODABLE
from startgate.gates.view import View
from startgate.hold import Hold
from startgate.kernel import namespaces
from startgate.kernel.local import LocalFiles
from startgate.kernel.pids import host_pids
from startgate.kernel.process import NAMESPACES, Proc, ProcessId
from startgate.lifecycle import Entry
from startgate.runtimes import oci, state

log = logging.getLogger(__name__)

_PID_FILE_LIMIT = 32
_USERS_FILE_LIMIT = 1 << 20
_GENERATIONS = 64
"""Hooks of hooks: nobody nests deeper, and a worker's time is limited."""
# `crun run --detach` may have left by the time of the first exec, and its child not have
# written the state yet: it does while the init is held.
_PAUSES = (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)


def by_state(proc: Proc, entry: Entry, tid: int | None = None) -> ProcessId | None:
    """Return the process that the runtime's state directory names. On a worker.

    `tid` is a held task that uses the same state directory.
    """
    for root in _roots(proc, entry, tid):
        try:
            if init := _in_state(proc, entry, root):
                return init
        finally:
            os.close(root)
    return None


def _roots(proc: Proc, entry: Entry, tid: int | None) -> Iterator[int]:
    """Open root directories below which the state directory is: the host's, or those of who sees it."""
    if entry.key.root.startswith("/"):
        yield os.open(proc.host, os.O_PATH | os.O_CLOEXEC)
        return
    caller = entry.container.started_by
    for pid in (tid, entry.runtime.pid, caller and caller.pid):
        try:
            with View(proc, pid or 0) as view:
                if view.place(entry.root) == entry.key.root:
                    yield os.dup(view.root)
        except (NotReadable, OSError):
            continue


def _in_state(proc: Proc, entry: Entry, root: int) -> ProcessId | None:
    kind = entry.flavour
    places = [entry.root or entry.key.root]
    if kind is state.CRUN and entry.invocation.root is None:
        places.append(state.CRUN_OF_LOGIN)
    for place in places:
        if found := state.read(root, place, entry.key.id, kind):
            for pid in host_pids(proc, found.pid, entry.pids):
                try:
                    init = proc.identify(pid)
                except NotReadable:
                    continue
                if found.start in (0, init.start_time) and _is_newer(init, entry):
                    return init
    return None


def by_users_files(proc: Proc, entry: Entry, tid: int | None = None) -> ProcessId | None:
    """Return the init of a user's container, as the user's files name it.

    It must be younger than its runtime, and in a user namespace that the same user made.
    """
    with LocalFiles(proc.host, entry.key.uid) as files:
        named = (
            (pid, start)
            for number, start in _named(files, entry)
            for pid in host_pids(proc, number, entry.pids)
        )
        for pid, start in named:
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
    if len(data) <= _PID_FILE_LIMIT and data.strip().isdigit():
        for pid in host_pids(proc, int(data), entry.pids):
            try:
                init = proc.identify(pid)
            except NotReadable:
                log.debug("container %s: process %r is gone", entry.container.id, data)
                continue
            if _is_newer(init, entry):
                return init
    log.warning("container %s: its pid file holds %r, not its init: ignored", entry.container.id, data)
    return None


def by_exec(proc: Proc, entries: Sequence[Entry], pid: int, others: Iterable[ProcessId] = ()) -> Entry | None:
    """Return the container whose init the process `pid` is, which executes a first program. On a worker.

    Others execute the same inode too: hooks, `exec`s, other containers. `others` are the runtime
    processes whose descendants are no init of `entries`.
    """
    for entry in entries:
        if entry.container.pid == pid:
            return entry
    unknown = [entry for entry in entries if entry.container.pid is None]
    if not unknown or not _is_unused(proc, pid):
        return None
    ancestors = _ancestors(proc, pid)
    nearest = _nearest(ancestors, [*(entry.runtime for entry in unknown), *others])
    for entry in unknown:
        if entry.runtime == nearest:
            return _if_apart(proc, entry, pid, ancestors)
    if nearest or not ancestors:
        return None
    kinds = {kind for entry in unknown for kind in _own_namespaces(entry)}
    try:
        wait = _differs(proc, pid, proc.namespaces(ancestors[0].pid), kinds, any)
    except NotReadable:
        wait = True
    return _named_by_state(proc, unknown, pid, wait=wait)


def _if_apart(proc: Proc, entry: Entry, pid: int, ancestors: Sequence[ProcessId]) -> Entry | None:
    try:
        return entry if _is_apart(proc, entry, pid, ancestors) else None
    except NotReadable:  # its runtime is just ending, and has no namespaces any more
        return _named_by_state(proc, [entry], pid, wait=True)


def _named_by_state(proc: Proc, entries: Sequence[Entry], pid: int, *, wait: bool) -> Entry | None:
    """The runtime is gone: its state tells, or will in a moment."""
    for pause in _PAUSES if wait else (0,):
        time.sleep(pause)
        for entry in entries:
            if (init := by_state(proc, entry)) and init.pid == pid:
                return entry
    return None


def _is_unused(proc: Proc, pid: int) -> bool:
    """An init has executed nothing since it was forked; the programs of hooks and `exec`s execute others."""
    try:
        return not proc.stat(pid).executed
    except NotReadable:
        return False


def _ancestors(proc: Proc, pid: int) -> list[ProcessId]:
    """Return the ancestors of a process, the nearest first."""
    found: list[ProcessId] = []
    with suppress(NotReadable):
        parent = proc.stat(pid).ppid
        while parent and len(found) < _GENERATIONS:
            stat = proc.stat(parent)
            found.append(ProcessId(parent, stat.start_time))
            parent = stat.ppid
    return found


def _nearest(ancestors: Sequence[ProcessId], runtimes: Iterable[ProcessId]) -> ProcessId | None:
    known = set(runtimes)
    return next((ancestor for ancestor in ancestors if ancestor in known), None)


def _is_apart(proc: Proc, entry: Entry, pid: int, ancestors: Sequence[ProcessId]) -> bool:
    """Is the process the first in the namespaces that the container has of its own?

    The hooks of config.json descend from the runtime too, but they share their parent's namespaces:
    those of the runtime, or of the init. Raises NotReadable.
    """
    kinds = _own_namespaces(entry)
    if not kinds:  # a container that shares all with its runtime: only its state can tell
        return bool(_named_by_state(proc, [entry], pid, wait=True))
    # Not as they are now: runc 1.2 and newer prepare a mount's source in the container's mount namespace,
    # on any of their threads; if that is the main one, /proc shows this namespace as the runtime's.
    runtimes = entry.namespaces or proc.namespaces(entry.runtime.pid)
    parents = runtimes if ancestors[0] == entry.runtime else proc.namespaces(ancestors[0].pid)
    return _differs(proc, pid, parents, kinds, any) and _differs(proc, pid, runtimes, kinds, all)


def _differs(
    proc: Proc,
    pid: int,
    others: Mapping[str, int],
    kinds: Iterable[str],
    how: Callable[[Iterable[bool]], bool],
) -> bool:
    """Is the process in other namespaces of these kinds than those? Raises NotReadable."""
    return how(proc.namespace(pid, kind) != others.get(kind) for kind in kinds)


def _own_namespaces(entry: Entry) -> list[str]:
    """Return the kinds of namespaces that are made for the container; "mnt" where that is not known."""
    if entry.config is None:
        return ["mnt"]
    asked = oci.namespace_paths(entry.config)  # that of time is entered by the execve itself
    return [kind for kind, path in asked.items() if not path and kind in NAMESPACES]
