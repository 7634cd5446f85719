"""The types that the OCI runtime-spec gives to what a patch may touch in config.json.

Source: github.com/opencontainers/runtime-spec, schema/config-schema.json and config-linux.json.
Unknown properties are allowed there: a runtime must ignore them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from startgate.config import tomlfile
from startgate.errors import UsageError

Uint32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Uint64 = Annotated[int, Meta(ge=0)]
Strings = list[str] | None
Int = int | None


class _Schema(msgspec.Struct, rename="camel"):
    """A JSON object; null stands for a property that is absent, as Go's omitempty writes it."""


class _User(_Schema):
    uid: Uint32 = 0
    gid: Uint32 = 0
    umask: Uint32 | None = None
    additional_gids: list[Uint32] | None = None
    username: str | None = None


class _Capabilities(_Schema):
    bounding: Strings = None
    effective: Strings = None
    permitted: Strings = None
    inheritable: Strings = None
    ambient: Strings = None


class _Rlimit(_Schema):
    type: str
    soft: Uint64
    hard: Uint64


class _Process(_Schema):
    cwd: str
    args: Strings = None
    env: Strings = None
    terminal: bool | None = None
    user: _User | None = None
    capabilities: _Capabilities | None = None
    rlimits: list[_Rlimit] | None = None
    no_new_privileges: bool | None = None
    oom_score_adj: Int = None
    apparmor_profile: str | None = None
    selinux_label: str | None = msgspec.field(name="selinuxLabel", default=None)


class _Root(_Schema):
    path: str
    readonly: bool | None = None


class _Mount(_Schema):
    destination: str
    source: str | None = None
    type: str | None = None
    options: Strings = None


class _Hook(_Schema):
    path: str
    args: Strings = None
    env: Strings = None
    timeout: Int = None


class _Hooks(_Schema):
    prestart: list[_Hook] | None = None
    create_runtime: list[_Hook] | None = None
    create_container: list[_Hook] | None = None
    start_container: list[_Hook] | None = None
    poststart: list[_Hook] | None = None
    poststop: list[_Hook] | None = None


class _Namespace(_Schema):
    type: Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]
    path: str | None = None


class _Device(_Schema):
    type: str
    path: str
    major: Int = None
    minor: Int = None
    file_mode: Int = None
    uid: Uint32 | None = None
    gid: Uint32 | None = None


class _IdMapping(_Schema):
    container_id: Uint32 = msgspec.field(name="containerID")
    host_id: Uint32 = msgspec.field(name="hostID")
    size: Uint32


class _DeviceRule(_Schema):
    allow: bool
    type: str | None = None
    major: Int = None
    minor: Int = None
    access: str | None = None


class _Memory(_Schema):
    limit: Int = None
    reservation: Int = None
    swap: Int = None
    kernel: Int = None
    kernel_tcp: Int = msgspec.field(name="kernelTCP", default=None)
    swappiness: Uint64 | None = None
    disable_oom_killer: bool | None = msgspec.field(name="disableOOMKiller", default=None)


class _Cpu(_Schema):
    shares: Uint64 | None = None
    quota: Int = None
    period: Uint64 | None = None
    cpus: str | None = None
    mems: str | None = None


class _Pids(_Schema):
    limit: Int = None


class _Resources(_Schema):
    devices: list[_DeviceRule] | None = None
    memory: _Memory | None = None
    cpu: _Cpu | None = None
    pids: _Pids | None = None
    unified: dict[str, str] | None = None


class _SeccompArgument(_Schema):
    index: Uint32
    value: Uint64
    op: str
    value_two: Uint64 | None = None


class _Syscalls(_Schema):
    names: Annotated[list[str], Meta(min_length=1)]
    action: str
    errno_ret: Uint32 | None = None
    args: list[_SeccompArgument] | None = None


class _Seccomp(_Schema):
    default_action: str
    default_errno_ret: Uint32 | None = None
    architectures: Strings = None
    flags: Strings = None
    syscalls: list[_Syscalls] | None = None


class _Linux(_Schema):
    namespaces: list[_Namespace] | None = None
    devices: list[_Device] | None = None
    uid_mappings: list[_IdMapping] | None = None
    gid_mappings: list[_IdMapping] | None = None
    sysctl: dict[str, str] | None = None
    cgroups_path: str | None = None
    resources: _Resources | None = None
    rootfs_propagation: str | None = None
    seccomp: _Seccomp | None = None
    masked_paths: Strings = None
    readonly_paths: Strings = None
    mount_label: str | None = None


class _Config(_Schema):
    oci_version: str
    process: _Process | None = None
    root: _Root | None = None
    hostname: str | None = None
    domainname: str | None = None
    mounts: list[_Mount] | None = None
    hooks: _Hooks | None = None
    annotations: dict[str, str] | None = None
    linux: _Linux | None = None


def check(document: dict[str, Any]) -> None:
    """Raises ValueError, which names the place, for what the schema does not allow."""
    msgspec.convert(document, _Config)


def check_seccomp(document: dict[str, Any]) -> None:
    """Raises InvalidChange: it is no linux.seccomp of the runtime-spec."""
    if "archMap" in document:
        raise InvalidChange(
            "seccomp", "this is a profile of Docker's own form, not linux.seccomp of config.json"
        )
    try:
        msgspec.convert(document, _Seccomp)
    except msgspec.ValidationError as error:
        raise InvalidChange("seccomp", str(error)) from error


def read_seccomp(path: str, reader: tomlfile.Reader = tomlfile.read_any) -> dict[str, Any]:
    """Read a linux.seccomp from a file. Raises InvalidChange."""
    try:
        return msgspec.json.decode(reader(path), type=dict[str, Any])
    except UsageError as error:
        raise InvalidChange("seccomp", str(error)) from error
    except msgspec.MsgspecError as error:
        raise InvalidChange("seccomp", f"{path}: {error}") from error


class InvalidChange(UsageError):
    """A change that can't be made to any config.json; `key` is its name in a rule."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
