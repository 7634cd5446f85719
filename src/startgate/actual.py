"""`container.actual`: what the kernel says of a container's init, which config.json can only ask for.

The types alone: `startgate.gates.actual` reads it. `startgate.events` has all other types.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from startgate.kernel.capabilities import CAPABILITIES

# What a text may be: `startgate policy check` tells of a rule that waits for anything else.
NamespaceKind = Annotated[
    str, Meta(extra={"words": ("mnt", "net", "pid", "ipc", "uts", "user", "cgroup", "time")})
]
CapabilityName = Annotated[str, Meta(extra={"words": CAPABILITIES})]
RealPath = Annotated[str, Meta(extra={"path": True})]
"""Absolute, without links, ``..`` and needless slashes."""

Privilege = Literal[
    "apparmor",
    "capabilities",
    "mounts",
    "namespaces",
    "no_new_privileges",
    "read_only_rootfs",
    "resources",
    "seccomp",
    "user",
]
"""In what the kernel's process may do more than the record says."""


class IdMapping(msgspec.Struct, frozen=True):
    """Ids of the container's user namespace, and which of the host they are (user_namespaces(7))."""

    container: int
    host: int
    size: int


class ActualMount(msgspec.Struct, frozen=True):
    """A line of the init's mountinfo (proc_pid_mountinfo(5)).

    `device`: ``MAJOR:MINOR`` of the file system; `root`: what of it is mounted. `propagation`:
    ``private``, ``shared`` (also where it is a slave, too), ``slave`` or ``unbindable``.
    """

    device: str
    root: str
    destination: str
    type: str
    read_only: bool = False
    propagation: Literal["private", "shared", "slave", "unbindable"] = "private"


class HostMount(msgspec.Struct, frozen=True):
    """A directory, or file, of the host's own file systems that is in the container, beside its rootfs.

    `host_path` is where it is on the host; None where none of the host's mounts shows it. One that has
    several names there is told once with each. A layer of an overlay is told as one that is `read_only`.
    """

    destination: str
    host_path: RealPath | None = None
    type: str = ""
    read_only: bool = False


UNLIMITED = -1


class Limits(msgspec.Struct, frozen=True):
    """What the cgroups of the init, and those above them, let it have; None: not known, -1: no limit.

    `memory`: bytes. `cpu_quota`: microseconds of CPU time in each `cpu_period`.
    """

    memory: int | None = None
    pids: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None


class Actual(msgspec.Struct, frozen=True):
    """What the runtime has built, as the kernel tells it of the container's init.

    `uid` and `gid` are the host's, as `uid_map` and `gid_map` map them. `capabilities`: its effective set.
    `seccomp` is None as long as the runtime may still install the filter that config.json asks for.
    `lsm`: the label with which its program runs (AppArmor's profile, SELinux's context).
    `rootfs`: where its root directory is on the host. `host_namespaces`: kinds that are the host's.
    `differs`: in what it may do more than the rest of the record says.
    """

    uid: int | None = None
    gid: int | None = None
    uid_map: tuple[IdMapping, ...] = ()
    gid_map: tuple[IdMapping, ...] = ()
    capabilities: tuple[CapabilityName, ...] = ()
    permitted_capabilities: tuple[CapabilityName, ...] = ()
    bounding_capabilities: tuple[CapabilityName, ...] = ()
    no_new_privileges: bool | None = None
    seccomp: Literal["disabled", "strict", "filter"] | None = None
    lsm: str | None = None
    host_namespaces: tuple[NamespaceKind, ...] = ()
    rootfs: RealPath | None = None
    read_only_rootfs: bool | None = None
    mounts: tuple[ActualMount, ...] = ()
    host_mounts: tuple[HostMount, ...] = ()
    differs: tuple[Privilege, ...] = ()
    limits: Limits = Limits()
