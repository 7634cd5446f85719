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
from startgate.runtimes import oci


def describe(container: Container, config: oci.Config, view: View, proc: Proc, runtime: int) -> Container:
    """Return the container with `host_namespaces`, and its mounts resolved. On a worker.

    `runtime` is the pid of the runtime. Raises NotReadable when it is gone.
    """
    asked, host = oci.namespace_paths(config), proc.host_namespaces()
    inherited = {kind: proc.namespace(runtime, kind) for kind in host if kind not in asked}
    shared = shared_namespaces(asked, inherited, host, view.namespace)
    return resolved(replace(container, host_namespaces=shared), view)


def resolved(container: Container, view: View) -> Container:
    """Return the container with the places on the host that its mounts lead to."""
    found: list[Mount] = []
    unknown = container.unknown
    for mount in _mounts(container, view):
        try:
            found.append(replace(mount, resolved=_resolve(view, mount, container.bundle or "/")))
        except OSError as error:
            found.append(mount)
            if error.errno not in _NOWHERE and "mounts" not in unknown:
                unknown = (*unknown, "mounts")
    return replace(container, mounts=tuple(found), unknown=unknown)


def _mounts(container: Container, view: View) -> Iterator[Mount]:
    """A bind mount of what is on an overlay is followed by the directories that this is made of."""
    for mount in container.mounts:
        yield mount
        if oci.is_bind(mount):
            with suppress(OSError):
                for layer in view.layers_of(posixpath.join(container.bundle or "/", mount.source))[:_LAYERS]:
                    yield replace(mount, type="overlay", source=printable(layer), options=("layer",))


_LAYERS = 16
"""Of one overlay, that are told."""
_NOWHERE = (errno.ENOENT, errno.ENOTDIR)
"""Nothing is there: a runtime fails, or somebody makes it first."""
_WITHOUT_DEVICE = frozenset(
    "bpf cgroup cgroup2 debugfs devpts hugetlbfs mqueue proc ramfs securityfs sysfs tmpfs tracefs".split()
)


def _resolve(view: View, mount: Mount, bundle: str) -> str | None:
    """Raises OSError where it can't be known."""
    if oci.is_bind(mount):
        return view.origin(posixpath.join(bundle, mount.source))
    if mount.type in _WITHOUT_DEVICE or not mount.source.startswith("/"):
        return None
    return view.origin(mount.source) if mount.type == "overlay" else view.file_system_on(mount.source)


def shared_namespaces(
    asked: Mapping[str, str | None],
    inherited: Mapping[str, int | None],
    host: Mapping[str, int],
    look_up: Callable[[str], int | None],
) -> tuple[str, ...]:
    """Return the kinds of namespaces that will be the host's. Pure but for `look_up`.

    `asked`: kind -> the path to join, None for a new one; an absent kind is inherited.
    """
    future = dict(inherited)
    for kind, path in asked.items():
        future[kind] = look_up(path) if path else None
    return tuple([kind for kind, inode in host.items() if future.get(kind) == inode])
