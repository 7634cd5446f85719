"""config.json and process files of the OCI runtime-spec, decoded. Pure.

Only what startgate tells of a container is decoded; the rest is skipped, not checked.
Source of the format: github.com/opencontainers/runtime-spec, config.md and config-linux.md.
"""

from __future__ import annotations

import posixpath
from typing import Any, TypeVar, get_args

import msgspec

from startgate.errors import BundleError
from startgate.events import Device, Mount, Rlimit
from startgate.foreign import UNDECODABLE
from startgate.runtimes.plain import expect_plain

T = TypeVar("T")

CONFIG = "config.json"
"""The name of a bundle's configuration."""
CONFIG_LIMIT = 16 << 20
"""Bytes of the largest config.json that is read."""

PART_LIMIT = 4 << 20
"""Bytes of the largest `process`, `mounts`, `annotations`, ... of it."""

WORDS_LIMIT = 8 << 20
"""Of the environment and the arguments: execve takes 6 MiB of both (3/4 of _STK_LIM, fs/exec.c)."""

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
    selinux_label: str | None = None
    oom_score_adj: int | None = None
    rlimits: tuple[Rlimit, ...] | None = None


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


class Memory(msgspec.Struct, frozen=True):
    """linux.resources.memory."""

    limit: int | None = None
    swap: int | None = None


class Pids(msgspec.Struct, frozen=True):
    """linux.resources.pids."""

    limit: int | None = None


class Cpu(msgspec.Struct, frozen=True):
    """linux.resources.cpu."""

    shares: int | None = None
    quota: int | None = None
    period: int | None = None
    cpus: str | None = None


class OciResources(msgspec.Struct, frozen=True):
    """linux.resources."""

    devices: tuple[DeviceRule, ...] | None = None
    memory: Memory | None = None
    pids: Pids | None = None
    cpu: Cpu | None = None


class OciIdMapping(msgspec.Struct, frozen=True, rename={"container_id": "containerID", "host_id": "hostID"}):
    """linux.uidMappings[], linux.gidMappings[]."""

    container_id: int = 0
    host_id: int = 0
    size: int = 0


class OciHook(msgspec.Struct, frozen=True):
    """hooks.STAGE[]."""

    path: str
    args: tuple[str, ...] | None = None


class Namespace(msgspec.Struct, frozen=True):
    """linux.namespaces[]."""

    type: str
    path: str | None = None


class Seccomp(msgspec.Struct, frozen=True, rename="camel"):
    """linux.seccomp: that there is one."""

    default_action: str = ""


class Linux(msgspec.Struct, frozen=True, rename="camel"):
    """linux."""

    namespaces: tuple[Namespace, ...] | None = None
    resources: OciResources | None = None
    seccomp: Seccomp | None = None
    devices: tuple[Device, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    sysctl: dict[str, str] | None = None
    uid_mappings: tuple[OciIdMapping, ...] | None = None
    gid_mappings: tuple[OciIdMapping, ...] | None = None


class Config(msgspec.Struct, frozen=True):
    """config.json."""

    process: OciProcess | None = None
    root: Root | None = None
    hostname: str | None = None
    mounts: tuple[OciMount, ...] | None = None
    annotations: dict[str, str] | None = None
    linux: Linux | None = None
    hooks: dict[str, tuple[OciHook, ...] | None] | None = None


_config = msgspec.json.Decoder(Config)
_process = msgspec.json.Decoder(OciProcess)


class _Parts:
    """Decodes an object field by field: at first it is only found where each begins and ends."""

    def __init__(self, kind: type[msgspec.Struct]) -> None:
        self._kind = kind
        fields = msgspec.structs.fields(kind)
        # A struct: the other keys of a dict would be checked. b"" stands for what is absent.
        parts = [(field.encode_name, msgspec.Raw, msgspec.Raw(b"")) for field in fields]
        self._split = msgspec.json.Decoder(msgspec.defstruct("_Split", parts))
        self._decoders = {
            field.encode_name: (field.name, msgspec.json.Decoder(field.type), _parts_of(field.type))
            for field in fields
        }

    def decode(self, data: bytes | msgspec.Raw, what: str) -> Any:
        """Raises BundleError."""
        split, found = _decode(self._split, data, what), {}
        for key, (name, decoder, parts) in self._decoders.items():
            part: msgspec.Raw = getattr(split, key)
            if len(part) > LARGE and parts:
                found[name] = parts.decode(part, key)
            elif len(part) > (limit := WORDS_LIMIT if key in ("env", "args") else PART_LIMIT):
                raise BundleError(f"its {key} are larger than {limit} bytes")
            elif len(part):
                found[name] = _decode(decoder, part, key)
        return self._kind(**found)


def _parts_of(kind: Any) -> _Parts | None:
    """Return how the parts of an object are decoded: `linux`, `process` (whose environment is skipped)."""
    types = [each for each in (kind, *get_args(kind)) if isinstance(each, type)]
    structs = [each for each in types if issubclass(each, msgspec.Struct)]
    return _Parts(structs[0]) if structs else None


_config_parts = _Parts(Config)


def decode_config(data: bytes) -> Config:
    """Decode config.json. Raises BundleError: not JSON, not of the spec's types, or too large a part.

    No other thread runs while msgspec decodes, up to 0.3 s for 16 MiB: so a large one is
    decoded in parts.
    """
    if len(data) > LARGE:
        return decode_parts(data)
    config = _decode(_config, data, "config.json")
    expect_plain(data, Config)
    return config


def decode_parts(data: bytes) -> Config:
    """Decode config.json like `decode_config`, letting other threads run in between."""
    config: Config = _config_parts.decode(data, "config.json")
    return config


def decode_process(data: bytes) -> OciProcess:
    """Decode a --process file. Raises BundleError."""
    process = _decode(_process, data, "the process file")
    expect_plain(data, OciProcess)
    return process


def _decode(decoder: msgspec.json.Decoder[T], data: bytes | msgspec.Raw, what: str) -> T:
    try:
        return decoder.decode(data)
    except UNDECODABLE as error:
        raise BundleError(f"{what} is not what the OCI runtime-spec says: {error}") from error


def rootfs_path(bundle: str, config: Config) -> str:
    """Return root.path, made absolute: it is relative to the bundle."""
    path = config.root.path if config.root else "rootfs"
    return posixpath.normpath(posixpath.join(bundle, path))


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
