"""`container.actual`: what the runtime has built, read from the init's /proc.

It takes some hundred microseconds while the start is held, so it is read only where somebody asks for it.
All is the kernel's own text, but for the layers of an overlay, which are as whoever mounted it wrote them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from msgspec.structs import replace

from startgate.errors import NotReadable
from startgate.events import Actual, ActualMount, Container, HostMount, IdMapping, printable
from startgate.foreign import Fitting, size
from startgate.gates.context import Context
from startgate.gates.differing import Found, privileges
from startgate.gates.limits import limits_of
from startgate.gates.view import View
from startgate.kernel import mountinfo
from startgate.kernel.capabilities import CAPABILITIES, capability_names
from startgate.kernel.cgroups import parse_cgroup
from startgate.kernel.layers import MountLine, overlay_layers
from startgate.kernel.mountinfo import HostNames, is_within
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry, State

log = logging.getLogger(__name__)

_SECCOMP: dict[str, Literal["disabled", "strict", "filter"]] = {"0": "disabled", "1": "strict", "2": "filter"}
_HARMLESS = frozenset(f"/dev/{name}" for name in ("null", "zero", "full", "random", "urandom", "tty"))
"""Devices that every container has: crun masks files with the host's; in a user namespace all are."""
_CGROUPS = ("cgroup", "cgroup2")


def wanted(context: Context, container: Container, init: ProcessId, *, final: bool) -> Container:
    """Return the container with what the kernel says of its init, where somebody asks for that. On a worker.

    Look again whether the pid is still the init's after this.
    """
    if not context.listeners.want_actual:
        return container
    try:
        return complete(container, context.proc, init.pid, final=final)
    except NotReadable as error:
        log.info("container %s: what the kernel says of it can't be read: %s", container.id, error)
        return container


def of_running(context: Context, entry: Entry) -> Container:
    """Return an entry's container; what the kernel says of it is read now, where nobody asked before."""
    if entry.container.actual is None and entry.init_watch:
        refresh(context, entry, entry.init_watch.process, final=entry.state is State.RUNNING)
    return entry.container


def refresh(context: Context, entry: Entry, init: ProcessId, *, final: bool) -> None:
    """Have the entry's container tell what the kernel says now, where somebody asks for that."""
    container = wanted(context, entry.container, init, final=final)
    if container is not entry.container and context.proc.is_alive(init):
        entry.container = container


def complete(container: Container, proc: Proc, pid: int, *, final: bool) -> Container:
    """Return the container with `actual`. On a worker. `final`: it executes its program, or is held there.

    `of_process` has been asked before. Raises NotReadable when the process is gone. Its pid may be
    another's by now: look again after this.
    """
    status = proc.status(pid)
    table, whole = mountinfo.read(f"{proc.root}/{pid}")
    mounts = list(mountinfo.parse(table))
    root = next((mount for mount in reversed(mounts) if mount.point == "/"), None)
    names, all_names = _host_names(proc)
    cgroups = _own_cgroups(proc, pid) if any(mount.kind in _CGROUPS for mount in mounts) else []
    with View(proc, None) as view:
        layers = _Layers(view)
        found = list(_of_host(mounts, root, names, cgroups, layers))
    fitting = Fitting()
    actual = Actual(
        uid=_number(status, "Uid"),
        gid=_number(status, "Gid"),
        uid_map=_id_map(proc, pid, "uid_map"),
        gid_map=_id_map(proc, pid, "gid_map"),
        capabilities=_capabilities(status, "CapEff"),
        permitted_capabilities=_capabilities(status, "CapPrm"),
        bounding_capabilities=_capabilities(status, "CapBnd"),
        no_new_privileges={"0": False, "1": True}.get(status.get("NoNewPrivs", "")),
        seccomp=_seccomp(status, container, final=final),
        lsm=_label(proc, pid),
        host_namespaces=_host_namespaces(container, proc),
        rootfs=_rootfs(root, names),
        read_only_rootfs=root.read_only if root else None,
        mounts=fitting.items("actual.mounts", map(_mount, mounts), _size_of_mount),
        host_mounts=fitting.items("actual.host_mounts", _host_mounts(found), _size_of_host_mount),
        limits=limits_of(proc, pid),
    )
    actual = replace(actual, differs=privileges(actual, container, found))
    complete = {"actual.mounts": whole, "actual.host_mounts": whole and all_names and layers.left > 0}
    cut = [name for name in complete if name in fitting.cut or not complete[name]]
    kept = tuple(name for name in container.truncated if not name.startswith("actual."))
    return replace(container, actual=actual, truncated=(*kept, *cut))


def _number(status: dict[str, str], name: str) -> int | None:
    """Return the effective id: the second of four (proc_pid_status(5))."""
    words = status.get(name, "").split()
    return int(words[1]) if len(words) > 1 else None


def _capabilities(status: dict[str, str], name: str) -> tuple[str, ...]:
    held = capability_names(int(status.get(name, "0"), 16))
    return tuple(each for each in CAPABILITIES if each in held)


def _seccomp(
    status: dict[str, str], container: Container, *, final: bool
) -> Literal["disabled", "strict", "filter"] | None:
    """crun, and runc before 1.1 with no_new_privs, install the filter after `start`: until then, that there
    is none says nothing."""
    mode = _SECCOMP.get(status.get("Seccomp", ""))
    return None if mode == "disabled" and container.seccomp and not final else mode


def _id_map(proc: Proc, pid: int, name: str) -> tuple[IdMapping, ...]:
    lines = (line.split() for line in proc.read(pid, name).decode().splitlines())
    return tuple(IdMapping(*map(int, line)) for line in lines if len(line) == 3)


def _label(proc: Proc, pid: int) -> str | None:
    """Return the label that its program will have, where a runtime has set one for its exec, else its own."""
    for name in ("attr/exec", "attr/current"):
        try:
            label = proc.read(pid, name).decode(errors="replace").strip("\0\n")
        except NotReadable:  # no security module has labels here
            continue
        if label:
            return printable(label)
    return None


def _host_namespaces(container: Container, proc: Proc) -> tuple[str, ...]:
    theirs = proc.host_namespaces().items()
    return tuple(kind for kind, inode in theirs if getattr(container.namespaces, kind) == inode)


def _host_names(proc: Proc) -> tuple[HostNames, bool]:
    """Of what pid 1 has mounted, and we, where that is something else; and: are they all?"""
    tables = [(_table(f"{proc.root}/1"), "/")]
    if os.stat("/proc/self/ns/mnt").st_ino != _mounts_of_pid_1(proc):
        tables.append((_table("/proc/self"), proc.host))
    return HostNames((table, host) for (table, _), host in tables), all(whole for (_, whole), _ in tables)


def _mounts_of_pid_1(proc: Proc) -> int | None:
    try:
        return proc.namespace(1, "mnt")
    except NotReadable:  # hidden from whoever may not trace it (ptrace(2))
        return None


def _table(process: str) -> tuple[bytes, bool]:
    try:
        return mountinfo.read(process, mountinfo.HOST_LIMIT)
    except NotReadable:  # hidden from whoever may not trace it
        return b"", True


def _own_cgroups(proc: Proc, pid: int) -> list[str]:
    text = proc.read(pid, "cgroup").decode(errors="surrogateescape")
    return [path for _, path in parse_cgroup(text) if path != "/"]


class _Layers:
    """Tells where the layers of overlays lead on the host, of so many: each is walked to."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.left = 1000

    def __call__(self, mount: MountLine) -> Iterator[str | None]:
        """Yield where what is mounted leads in each layer; None: nobody knows."""
        for layer in overlay_layers(mount.options)[: self.left]:
            self.left -= 1
            try:
                if not layer.startswith("/"):  # to where it was mounted
                    raise FileNotFoundError(layer)
                yield os.path.normpath(f"{self._view.origin(layer)}/{mount.root}")
            except OSError:
                yield None


def _of_host(
    mounts: Iterable[MountLine],
    root: MountLine | None,
    names: HostNames,
    cgroups: Iterable[str],
    layers: Callable[[MountLine], Iterator[str | None]],
) -> Iterator[Found]:
    """Yield what is the host's, beside the rootfs, the own cgroup and what every container has.

    A rootfs that is the host's own root is no container's alone.
    """
    of_host = root is not None and "/" in (names.of(root) or ())
    for mount in mounts:
        if root and not of_host and mount.device == root.device and is_within(mount.root, root.root):
            continue
        if mount.kind in _CGROUPS and any(is_within(mount.root, own) for own in cgroups):
            continue
        paths = names.of(mount)
        if paths is not None and _HARMLESS.isdisjoint(paths):
            yield Found(mount, paths or (None,))
        if mount.kind == "overlay":
            for path in layers(mount):
                yield Found(mount, (path,), layer=True)


def _host_mounts(found: Iterable[Found]) -> Iterator[HostMount]:
    for mount, paths, layer in found:
        for path in paths:
            yield HostMount(
                destination=printable(mount.point),
                host_path=printable(path) if path is not None else None,
                type=mount.kind,
                read_only=mount.read_only or layer,
            )


def _rootfs(root: MountLine | None, names: HostNames) -> str | None:
    paths = names.of(root) if root else None
    return printable(paths[0]) if paths else None


def _mount(mount: MountLine) -> ActualMount:
    return ActualMount(
        device=mount.device,
        root=printable(mount.root),
        destination=printable(mount.point),
        type=printable(mount.kind),
        read_only=mount.read_only,
        propagation=_propagation(mount.tags),
    )


def _propagation(tags: str) -> Literal["private", "shared", "slave", "unbindable"]:
    if "shared:" in tags:
        return "shared"
    if "master:" in tags:
        return "slave"
    return "unbindable" if "unbindable" in tags else "private"


def _size_of_mount(mount: ActualMount) -> int:
    return size(mount.device, mount.root, mount.destination, mount.type)


def _size_of_host_mount(mount: HostMount) -> int:
    return size(mount.destination, mount.host_path or "", mount.type)
