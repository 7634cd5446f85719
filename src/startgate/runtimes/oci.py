"""config.json and process files of the OCI runtime-spec, decoded and judged. Pure.

Only what startgate tells of a container is decoded; the rest is skipped, not checked.
Source of the format: github.com/opencontainers/runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import TypeVar

import msgspec

from startgate.errors import BundleError
from startgate.events import Container, Mount, Process, printable

T = TypeVar("T")

CONFIG_LIMIT = 16 << 20
"""Bytes of the largest config.json that is read."""


class User(msgspec.Struct, frozen=True):
    """process.user."""

    uid: int = 0
    gid: int = 0
    username: str = ""


class Capabilities(msgspec.Struct, frozen=True):
    """process.capabilities."""

    bounding: tuple[str, ...] | None = None
    effective: tuple[str, ...] | None = None


class OciProcess(msgspec.Struct, frozen=True, rename="camel"):
    """process: also the whole of exec's --process file."""

    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    cwd: str = "/"
    terminal: bool = False
    user: User = User()
    no_new_privileges: bool = False
    capabilities: Capabilities | None = None
    apparmor_profile: str | None = None


class Root(msgspec.Struct, frozen=True):
    """root."""

    path: str = "rootfs"
    readonly: bool = False


class OciMount(msgspec.Struct, frozen=True):
    """mounts[]."""

    destination: str
    source: str | None = None
    type: str | None = None
    options: tuple[str, ...] | None = None


class DeviceRule(msgspec.Struct, frozen=True):
    """linux.resources.devices[]."""

    allow: bool = False
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Resources(msgspec.Struct, frozen=True):
    """linux.resources."""

    devices: tuple[DeviceRule, ...] | None = None


class Namespace(msgspec.Struct, frozen=True):
    """linux.namespaces[]."""

    type: str
    path: str | None = None


class Seccomp(msgspec.Struct, frozen=True, rename="camel"):
    """linux.seccomp: that there is one."""

    default_action: str = ""


class Linux(msgspec.Struct, frozen=True):
    """linux."""

    namespaces: tuple[Namespace, ...] | None = None
    resources: Resources | None = None
    seccomp: Seccomp | None = None


class Config(msgspec.Struct, frozen=True):
    """config.json."""

    process: OciProcess | None = None
    root: Root | None = None
    hostname: str | None = None
    mounts: tuple[OciMount, ...] | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None


_config = msgspec.json.Decoder(Config)
_process = msgspec.json.Decoder(OciProcess)


def decode_config(data: bytes) -> Config:
    """Decode config.json. Raises BundleError: not JSON, or not of the spec's types."""
    return _decode(_config, data, "config.json")


def decode_process(data: bytes) -> OciProcess:
    """Decode a --process file. Raises BundleError."""
    return _decode(_process, data, "the process file")


def _decode(decoder: msgspec.json.Decoder[T], data: bytes, what: str) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise BundleError(f"{what} is not what the OCI runtime-spec says: {error}") from error


def describe(container: Container, config: Config, all_capabilities: frozenset[str]) -> Container:
    """Return the container with what its config.json says.

    `all_capabilities` are those that the host can give: `privileged` compares with them.
    """
    process = config.process or OciProcess()
    linux = config.linux or Linux()
    capabilities = process.capabilities or Capabilities()
    held = capabilities.effective or capabilities.bounding or ()
    return msgspec.structs.replace(
        container,
        rootfs=rootfs_path(container.bundle or "/", config),
        annotations=dict(config.annotations or {}),
        hostname=config.hostname or None,
        args=process.args or (),
        user=user_name(process) if config.process else None,
        privileged=_is_privileged(linux, frozenset(capabilities.bounding or ()), all_capabilities),
        capabilities=tuple(sorted(set(held))),
        bounding_capabilities=tuple(sorted(set(capabilities.bounding or ()))),
        no_new_privileges=process.no_new_privileges,
        read_only_rootfs=bool(config.root and config.root.readonly),
        seccomp=linux.seccomp is not None,
        apparmor=process.apparmor_profile or None,
        mounts=tuple(_mount(mount) for mount in config.mounts or ()),
    )


def rootfs_path(bundle: str, config: Config) -> str:
    """Return root.path, made absolute: it is relative to the bundle."""
    path = config.root.path if config.root else "rootfs"
    return posixpath.normpath(posixpath.join(bundle, path))


def bind_source(path: str, config: Config) -> str | None:
    """Return the host's path of what a bind mount puts at `path` in the container.

    Relative to the bundle; None where no bind mount covers `path`. The last mount wins.
    """
    for mount in reversed(config.mounts or ()):
        at = posixpath.normpath(posixpath.join("/", mount.destination))
        if path != at and not path.startswith(at.rstrip("/") + "/"):
            continue
        inside = path[len(at) :].lstrip("/")
        return posixpath.join(mount.source or "", inside).rstrip("/") if is_bind(mount) else None
    return None


def describe_process(process: OciProcess) -> Process:
    """Return the event's view of an OCI process."""
    argv = process.args or ()
    return Process(argv=argv, user=user_name(process), cwd=process.cwd, tty=process.terminal)


def user_name(process: OciProcess) -> str:
    """Return `UID:GID`; on Windows bundles, and nowhere else, a name."""
    return process.user.username or f"{process.user.uid}:{process.user.gid}"


_NAMESPACES = {"network": "net", "mount": "mnt"}
"""Kinds that the runtime-spec calls otherwise than /proc/PID/ns."""


def namespace_paths(config: Config) -> dict[str, str | None]:
    """Return the namespaces that config.json asks for, by their names in /proc/PID/ns.

    A path: join that one; None: a new one. What is absent is inherited from the runtime.
    """
    listed = (config.linux.namespaces if config.linux else None) or ()
    return {_NAMESPACES.get(each.type, each.type): each.path or None for each in listed}


def is_bind(mount: OciMount) -> bool:
    """Is it a bind mount?"""
    return mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options or ()))


def _is_privileged(linux: Linux, bounding: frozenset[str], everything: frozenset[str]) -> bool:
    rules = (linux.resources.devices if linux.resources else None) or ()
    return bounding >= everything and linux.seccomp is None and _allows_all_devices(rules)


def _allows_all_devices(rules: Iterable[DeviceRule]) -> bool:
    """Rules apply in their order: a later one may take away what an earlier one gave."""
    allowed = False
    for rule in rules:
        every = rule.type in (None, "", "a") and {rule.major, rule.minor} <= {None, 0, -1}
        if every and rule.allow:
            allowed = allowed or set(rule.access or "rwm") >= set("rwm")
        elif not rule.allow:
            allowed = False
    return allowed


def _mount(mount: OciMount) -> Mount:
    return Mount(
        source=mount.source or "",
        destination=printable(mount.destination),
        type=mount.type or "",
        options=mount.options or (),
    )


# <linux/capability.h>, in the order of their numbers
CAPABILITIES = tuple(
    "CAP_" + name
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)


def capability_names(mask: int) -> frozenset[str]:
    """Return the names in a capability mask, as /proc/PID/status prints it (CapBnd)."""
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)
