"""What config.json shares with the host: namespaces, and the places that mounts lead to."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from startgate.events import Container, Mount
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
    return replace(container, host_namespaces=shared, mounts=resolved_mounts(container, view))


def resolved_mounts(container: Container, view: View) -> tuple[Mount, ...]:
    """Return the container's mounts with the places that its bind mounts lead to."""
    bundle = container.bundle or "/"
    return tuple(
        [
            replace(mount, resolved=_resolve(view, mount, bundle)) if oci.is_bind(mount) else mount
            for mount in container.mounts
        ]
    )


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


def _resolve(view: View, mount: Mount, bundle: str) -> str | None:
    return view.real_path(posixpath.join(bundle, mount.source))
