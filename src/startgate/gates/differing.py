"""`container.actual.differs`: in what a container may do more than its record says. Pure.

Only what is certain is named: a record may lack something, and a runtime need not be done yet.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from startgate.actual import Privilege
from startgate.events import Actual, Container, Mount
from startgate.kernel import layers
from startgate.kernel.mountinfo import is_within
from startgate.runtimes.oci import is_bind


class Found(NamedTuple):
    """A mount of a file system of the host's, and what it is there."""

    mount: layers.MountLine
    paths: tuple[str | None, ...]
    """All names that it has on the host; None for one that is not known."""
    layer: bool = False
    """Is it below an overlay?"""


def privileges(actual: Actual, container: Container, found: Iterable[Found]) -> tuple[Privilege, ...]:
    """Return what differs; nothing where config.json is not known. `found`: what is the host's."""
    if container.rootfs is None:
        return ()
    mounts = _has_more_mounts(actual, container, found)
    return tuple([name for name, differs in _TESTS if differs(actual, container)] + (["mounts"] * mounts))


def _apparmor(actual: Actual, container: Container) -> bool:
    return (actual.lsm or "").split(" ")[0] == "unconfined" and container.apparmor not in (None, "unconfined")


def _capabilities(actual: Actual, container: Container) -> bool:
    if "bounding_capabilities" in container.truncated or "capabilities" in container.truncated:
        return False
    held = {*actual.capabilities, *actual.permitted_capabilities, *actual.bounding_capabilities}
    return not held <= {*container.bounding_capabilities, *container.capabilities}


def _namespaces(actual: Actual, container: Container) -> bool:
    return not set(actual.host_namespaces) <= set(container.host_namespaces)


def _no_new_privileges(actual: Actual, container: Container) -> bool:
    return actual.no_new_privileges is False and container.no_new_privileges


def _read_only_rootfs(actual: Actual, container: Container) -> bool:
    return actual.read_only_rootfs is False and container.read_only_rootfs


_DEFAULT_PERIOD = 100_000
_PAGE = os.sysconf("SC_PAGE_SIZE")
_PERCENT = 0.01
"""Of a CPU: systemd takes whole ones, so runc rounds up to the next."""


def _resources(actual: Actual, container: Container) -> bool:
    """Does the kernel allow more? It counts memory in pages; that it allows less is somebody else's limit."""
    asked, built = container.resources, actual.limits
    return (
        _allows_more(asked.memory, built.memory, _PAGE)
        or _allows_more(asked.pids, built.pids, 0)
        or _allows_more(
            _share(asked.cpu_quota, asked.cpu_period), _share(built.cpu_quota, built.cpu_period), _PERCENT
        )
    )


def _allows_more(asked: float | None, built: float | None, rounding: float) -> bool:
    """0, or less, asks for no limit."""
    if built is None or asked is None or asked <= 0:
        return False
    return built < 0 or built > asked + rounding


def _share(quota: int | None, period: int | None) -> float | None:
    return quota if quota is None or quota <= 0 else quota / (period or _DEFAULT_PERIOD)


def _seccomp(actual: Actual, container: Container) -> bool:
    return actual.seccomp == "disabled" and container.seccomp


def _user(actual: Actual, container: Container) -> bool:
    """Is it root, of the host or of its user namespace, and the record says another?"""
    asked = (container.user or "").partition(":")[0]
    if actual.uid is None or not asked.isdecimal() or asked == "0":
        return False
    inside = [m.container + actual.uid - m.host for m in actual.uid_map if 0 <= actual.uid - m.host < m.size]
    return 0 in (actual.uid, *inside)


_TESTS: tuple[tuple[Privilege, Callable[[Actual, Container], bool]], ...] = (
    ("apparmor", _apparmor),
    ("capabilities", _capabilities),
    ("namespaces", _namespaces),
    ("no_new_privileges", _no_new_privileges),
    ("read_only_rootfs", _read_only_rootfs),
    ("resources", _resources),
    ("seccomp", _seccomp),
    ("user", _user),
)


def _has_more_mounts(actual: Actual, container: Container, found: Iterable[Found]) -> bool:
    """Is there one of the host's that nobody asked for, or one writable that was to be read-only?"""
    if "mounts" in container.truncated:
        return False
    unasked = any(not _is_asked_for(each, container) for each in found if not each.layer)
    return unasked or any(_became_writable(mount, actual) for mount in _last(container.mounts))


def _is_asked_for(found: Found, container: Container) -> bool:
    """Is it what the record says, or can't that be told? What is mounted below a source comes with it."""
    paths = [path for path in found.paths if path is not None]
    masks = found.mount.point in (*container.masked_paths, *container.read_only_paths)
    if not paths or (masks and found.mount.read_only):
        return True
    return any(_leads_there(mount, found.mount, paths) for mount in container.mounts)


def _leads_there(asked: Mount, built: layers.MountLine, paths: Iterable[str]) -> bool:
    if asked.resolved is not None:
        return any(is_within(path, asked.resolved) for path in paths)
    if is_bind(asked):  # to nobody knows where
        return is_within(built.point, posixpath.normpath(asked.destination))
    return built.kind.removesuffix("2") == asked.type.removesuffix("2")  # cgroup, or cgroup2


def _last(mounts: Iterable[Mount]) -> Iterator[Mount]:
    """Yield the topmost bind mounts: of those at one destination the last."""
    topmost = {posixpath.normpath(mount.destination): mount for mount in mounts}
    yield from (mount for mount in topmost.values() if is_bind(mount))


def _became_writable(asked: Mount, actual: Actual) -> bool:
    destination = posixpath.normpath(asked.destination)
    built = [mount for mount in actual.mounts if mount.destination == destination]
    return asked.read_only and bool(built) and not built[-1].read_only
