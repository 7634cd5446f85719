"""Which container a runtime command means: its id, in the state directory that the command uses.

Ids are unique within one state directory only. Most are named by an absolute path of the host. Others
are relative, or lead elsewhere than on the host: the caller has a /run of its own, or is in a chroot.
"""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from startgate.errors import NotReadable
from startgate.gates.view import View
from startgate.kernel.process import Proc
from startgate.lifecycle import Key
from startgate.records import ExecRecord
from startgate.runtimes import state
from startgate.runtimes.commandline import Invocation


class Named(NamedTuple):
    """A container, and the path by which its caller names its state directory."""

    key: Key
    root: str


def plain(proc: Proc, call: Invocation, path: str, record: ExecRecord) -> Named | None:
    """Return what a command of root means, if that is told without looking at any file. Never waits.

    `path` is the runtime's. None: `look_up`, on a worker.
    """
    root = call.root or state.flavour(posixpath.basename(path)).root
    crun = _is_crun(path)
    try:
        if not proc.sees_host(record.tid, record.namespaces.get("mnt")) or (crun and ".." in root.split("/")):
            return None
        if not root.startswith("/"):
            if crun and call.command.starts:
                return None
            root = posixpath.join(proc.working_directory(record.tid), root)
    except NotReadable:  # it is gone: what it meant matters little
        pass
    root = state.canonical(root)
    return Named(Key(root, call.id), root)


def of_user(proc: Proc, call: Invocation, path: str, record: ExecRecord) -> Named:
    """Return what a command of a user means, by the letters: nothing is looked at. Raises NotReadable."""
    root = call.root or state.flavour(posixpath.basename(path)).root
    if call.root and not root.startswith("/"):
        bundle = call.bundle or "." if _is_crun(path) and call.command.starts else "."
        root = posixpath.join(proc.working_directory(record.tid), bundle, root)
    root = state.canonical(root)
    return Named(Key(root, call.id, record.uid), root)


def look_up(proc: Proc, call: Invocation, path: str, record: ExecRecord) -> Named:
    """As `plain`, by following the path. On a worker. Raises NotReadable."""
    if named := plain(proc, call, path, record):
        return named
    return named_by(proc, call, path, record.tid)


def named_by(proc: Proc, call: Invocation, path: str, tid: int) -> Named:
    """Return what a command of the task `tid` means. On a worker. Raises NotReadable."""
    root = call.root or state.flavour(posixpath.basename(path)).root
    with View(proc, tid) as view:
        if not _is_crun(path):  # runc and youki go by the letters
            root = posixpath.normpath(posixpath.join(view.cwd, root))
        elif call.command.starts:  # crun has changed to the bundle by then
            root = view.absolute(root, view.absolute(call.bundle or "."))
        else:
            root = view.absolute(root)
        return Named(Key(_identity(proc, view, root, tid), call.id), root)


def _identity(proc: Proc, view: View, root: str, tid: int) -> str:
    try:
        place = view.place(root)
    except OSError:  # it may never answer
        place = None
    return state.canonical(place or f"{proc.namespace(tid, 'mnt')}:{root}")


def _is_crun(path: str) -> bool:
    return state.flavour(os.path.basename(path)) is state.CRUN
