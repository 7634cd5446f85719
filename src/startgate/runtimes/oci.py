"""config.json and process files of the OCI runtime-spec, decoded and judged. Pure.

Only what startgate tells of a container is decoded; the rest is skipped, not checked.
Source of the format: github.com/opencontainers/runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from typing import Any, TypeVar

import msgspec

from startgate.errors import BundleError
from startgate.events import Container, Mount, Process, printable
from startgate.foreign import UNDECODABLE, Fitting, size

T = TypeVar("T")

CONFIG = "config.json"
"""The name of a bundle's configuration."""
CONFIG_LIMIT = 16 << 20
"""Bytes of the largest config.json that is read."""

PART_LIMIT = 4 << 20
"""Bytes of the largest `process`, `mounts`, `annotations`, ... of it."""

LARGE = 1 << 20
"""Bytes of a config.json that costs something. Real ones have 10 KB."""


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
_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    field.encode_name: msgspec.json.Decoder(field.type) for field in msgspec.structs.fields(Config)
}
# Its fields, found and not looked into. A struct: the other keys of a dict would be checked.
_parts = msgspec.json.Decoder(
    msgspec.defstruct("_Parts", [(name, msgspec.Raw, msgspec.Raw(b"null")) for name in _decoders])
)


def decode_config(data: bytes) -> Config:
    """Decode config.json. Raises BundleError: not JSON, not of the spec's types, or too large a part.

    No other thread runs while msgspec decodes, up to 0.3 s for 16 MiB: so a large one is
    decoded in parts.
    """
    return decode_parts(data) if len(data) > LARGE else _decode(_config, data, "config.json")


def decode_parts(data: bytes) -> Config:
    """Decode config.json like `decode_config`, letting other threads run in between."""
    parts = _decode(_parts, data, "config.json")
    found = {}
    for name, decoder in _decoders.items():
        part: msgspec.Raw = getattr(parts, name)
        if len(part) > PART_LIMIT:
            raise BundleError(f"its {name} are larger than {PART_LIMIT} bytes")
        found[name] = _decode(decoder, part, name)
    return Config(**found)


def decode_process(data: bytes) -> OciProcess:
    """Decode a --process file. Raises BundleError."""
    return _decode(_process, data, "the process file")


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw, what: str) -> T:
    try:
        return decoder.decode(data)
    except UNDECODABLE as error:
        raise BundleError(f"{what} is not what the OCI runtime-spec says: {error}") from error


def describe(container: Container, config: Config, all_capabilities: frozenset[str]) -> Container:
    """Return the container with what its config.json says.

    `all_capabilities` are those that the host can give: `privileged` compares with them.
    """
    process = config.process or OciProcess()
    linux = config.linux or Linux()
    capabilities = process.capabilities or Capabilities()
    held = capabilities.effective or capabilities.bounding or ()
    fitting = Fitting()
    return msgspec.structs.replace(
        container,
        rootfs=printable(rootfs_path(container.bundle or "/", config)),
        annotations=fitting.pairs("annotations", config.annotations or {}),
        hostname=printable(config.hostname) if config.hostname else None,
        args=fitting.words("args", process.args or ()),
        user=user_name(process) if config.process else None,
        privileged=_is_privileged(linux, frozenset(capabilities.bounding or ()), all_capabilities),
        capabilities=fitting.words("capabilities", sorted(set(held))),
        bounding_capabilities=fitting.words(
            "bounding_capabilities", sorted(set(capabilities.bounding or ()))
        ),
        no_new_privileges=process.no_new_privileges,
        read_only_rootfs=bool(config.root and config.root.readonly),
        seccomp=linux.seccomp is not None,
        apparmor=printable(process.apparmor_profile) if process.apparmor_profile else None,
        mounts=fitting.items("mounts", map(_mount, config.mounts or ()), _size_of),
        truncated=fitting.cut,
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
    fitting = Fitting()
    return Process(
        argv=fitting.words("argv", process.args or ()),
        user=user_name(process),
        cwd=printable(process.cwd),
        tty=process.terminal,
        truncated=fitting.cut,
    )


def user_name(process: OciProcess) -> str:
    """Return `UID:GID`; on Windows bundles, and nowhere else, a name."""
    return printable(process.user.username) or f"{process.user.uid}:{process.user.gid}"


_NAMESPACES = {"network": "net", "mount": "mnt"}
"""Kinds that the runtime-spec calls otherwise than /proc/PID/ns."""


def namespace_paths(config: Config) -> dict[str, str | None]:
    """Return the namespaces that config.json asks for, by their names in /proc/PID/ns.

    A path: join that one; None: a new one. What is absent is inherited from the runtime.
    """
    listed = (config.linux.namespaces if config.linux else None) or ()
    return {_NAMESPACES.get(each.type, each.type): each.path or None for each in listed}


def is_bind(mount: OciMount | Mount) -> bool:
    """Is it a bind mount?"""
    return mount.type == "bind" or bool({"bind", "rbind"} & set(mount.options or ()))


# Linux 5.8 and 5.9: what Docker 20.10 calls privileged lacks them.
_UNKNOWN_TO_SOME = frozenset({"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"})


def _is_privileged(linux: Linux, bounding: frozenset[str], everything: frozenset[str]) -> bool:
    rules = (linux.resources.devices if linux.resources else None) or ()
    return bounding >= everything - _UNKNOWN_TO_SOME and linux.seccomp is None and _allows_all_devices(rules)


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
        destination=mount.destination,
        type=mount.type or "",
        options=mount.options or (),
    )


def _size_of(mount: Mount) -> int:
    return size(mount.source, mount.destination, mount.type, *mount.options)
