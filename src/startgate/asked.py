"""What config.json asks for, as events tell it: mounts, devices, hooks, limits."""

from __future__ import annotations

import msgspec

from startgate.actual import RealPath


class Mount(msgspec.Struct, frozen=True):
    """A mount of config.json.

    `resolved`: where the source of a bind mount leads on the host, links followed, by the
    shortest name that this has on the host; of a disk, where its file system is mounted. An overlay, and
    what is bound from one, is followed by a mount of type ``layer`` for each directory that it is made of.
    None for other mounts, and where it leads nowhere yet. `read_only`: as its options say together,
    whatever the engine writes (``ro``, ``rro``, ``rw`` after it).
    """

    source: str
    destination: str
    type: str
    options: tuple[str, ...] = ()
    resolved: RealPath | None = None
    read_only: bool = False


class Device(msgspec.Struct, frozen=True):
    """A device that is made in the container; `type` is ``b``, ``c``, ``u`` or ``p``."""

    path: str
    type: str
    major: int | None = None
    minor: int | None = None


class Hook(msgspec.Struct, frozen=True):
    """A program that the runtime executes on the host (`prestart`, ...) or in the container.

    `stage` is config.json's word: ``createRuntime``, ``startContainer``, ...
    """

    stage: str
    path: str
    args: tuple[str, ...] = ()


class Rlimit(msgspec.Struct, frozen=True):
    """A resource limit (getrlimit(2)) of the program; `type` is ``RLIMIT_NOFILE``, ..."""

    type: str
    soft: int
    hard: int


class Resources(msgspec.Struct, frozen=True):
    """What the container's cgroup limits; None: not limited by config.json, -1: without a limit.

    `memory`, `memory_swap`: bytes. `cpu_quota`: microseconds of CPU time in each `cpu_period`.
    """

    memory: int | None = None
    memory_swap: int | None = None
    pids: int | None = None
    cpu_shares: int | None = None
    cpu_quota: int | None = None
    cpu_period: int | None = None
    cpus: str | None = None
