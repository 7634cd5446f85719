"""What config.json shares with the host: namespaces, and the places that mounts lead to."""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

from msgspec.structs import replace

from startgate.events import Container, Mount, printable
from startgate.gates.view import View
from startgate.kernel.process import Proc
from startgate.runtimes import describe, oci


def complete(
    container: Container, config: oci.Config, view: View, proc: Proc, inherited: Mapping[str, int]
) -> Container:
    """Return the container with `host_namespaces`, and its mounts resolved. On a worker.

    `inherited` are the runtime's namespaces.
    """
    asked, host = oci.namespace_paths(config), proc.host_namespaces()
    shared = shared_namespaces(asked, inherited, host, view.namespace)
    return resolved(replace(container, host_namespaces=shared), view)


def resolved(container: Container, view: View) -> Container:
    """Return the container with the places on the host that its mounts lead to."""
    found: list[Mount] = []
    known = True
    for mount, path in _parts(container, view):
        try:
            found.append(replace(mount, resolved=_resolve(view, mount, path)))
        except OSError as error:
            found.append(mount)
            known = known and error.errno in _NOWHERE
    unknown = tuple([name for name in container.unknown if name != "mounts"])
    return replace(container, mounts=tuple(found), unknown=unknown if known else (*unknown, "mounts"))


_NOWHERE = (errno.ENOENT, errno.ENOTDIR)
"""Nothing is there: a runtime fails, or somebody makes it first."""
_STACKED = 2
"""Overlays upon each other that the kernel allows (FILESYSTEM_MAX_STACK_DEPTH)."""
_WITHOUT_DEVICE = frozenset(
    "bpf cgroup cgroup2 debugfs devpts hugetlbfs mqueue proc ramfs securityfs sysfs tmpfs tracefs".split()
)


def _parts(container: Container, view: View) -> Iterator[tuple[Mount, str]]:
    """Yield the mounts with their sources' paths. What is on an overlay is followed by the directories that
    this is made of."""
    for mount in container.mounts:
        path = posixpath.join(container.bundle or "/", mount.source) if oci.is_bind(mount) else mount.source
        yield mount, path
        if oci.is_bind(mount) or mount.type == describe.LAYER:
            yield from _layers(view, mount, path, _STACKED)


def _layers(view: View, mount: Mount, path: str, depth: int) -> Iterator[tuple[Mount, str]]:
    found: list[str] = []
    with suppress(OSError):  # `_resolve` meets the same
        found = view.layers_of(path)
    for layer in found if depth else ():
        part = replace(mount, type=describe.LAYER, source=printable(layer), options=())
        yield part, layer
        yield from _layers(view, part, layer, depth - 1)


def _resolve(view: View, mount: Mount, path: str) -> str | None:
    """Raises OSError where it can't be known."""
    if oci.is_bind(mount):
        return view.origin(path)
    if mount.type == describe.LAYER:
        if not path.startswith("/"):
            raise OSError(errno.EXDEV, "relative to where it was mounted", path)
        return view.origin(path)
    if mount.type in _WITHOUT_DEVICE or mount.type == "overlay" or not path.startswith("/"):
        return None
    found = view.file_system_on(path)
    if found and mount.type == "btrfs" and found.startswith("/dev/block/"):
        raise OSError(errno.EXDEV, "the mount table has other numbers for btrfs", path)
    return found


def shared_namespaces(
    asked: Mapping[str, str | None],
    inherited: Mapping[str, int],
    host: Mapping[str, int],
    look_up: Callable[[str], int | None],
) -> tuple[str, ...]:
    """Return the kinds of namespaces that will be the host's. Pure but for `look_up`.

    `asked`: kind -> the path to join, None for a new one; of an absent kind, the `inherited` one stays.
    """
    future: dict[str, int | None] = dict(inherited)
    for kind, path in asked.items():
        future[kind] = look_up(path) if path else None
    return tuple([kind for kind, inode in host.items() if future.get(kind) == inode])
