"""The container record as config.json has it, and the process of an `exec`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from startgate.events import Container, Hook, IdMapping, Mount, Process, Resources, printable
from startgate.foreign import Fitting, size
from startgate.kernel import layers
from startgate.runtimes import environment, oci


def container_of(container: Container, config: oci.Config, all_capabilities: frozenset[str]) -> Container:
    """Return the container with what its config.json says.

    `all_capabilities` are those that the host can give: `privileged` compares with them.
    """
    process = config.process or oci.OciProcess()
    linux = config.linux or oci.Linux()
    capabilities = process.capabilities or oci.Capabilities()
    held = capabilities.effective or capabilities.bounding or ()
    fitting = Fitting()
    return msgspec.structs.replace(
        container,
        rootfs=printable(oci.rootfs_path(container.bundle or "/", config)),
        annotations=fitting.pairs("annotations", config.annotations or {}),
        hostname=printable(config.hostname) if config.hostname else None,
        args=fitting.words("args", process.args or ()),
        user=user_name(process) if config.process else None,
        privileged=_is_privileged(linux, capabilities.bounding or (), all_capabilities),
        capabilities=fitting.words("capabilities", sorted(set(held))),
        bounding_capabilities=fitting.words(
            "bounding_capabilities", sorted(set(capabilities.bounding or ()))
        ),
        no_new_privileges=process.no_new_privileges,
        read_only_rootfs=bool(config.root and config.root.readonly),
        seccomp=linux.seccomp is not None,
        apparmor=_text(process.apparmor_profile),
        selinux=_text(process.selinux_label),
        mounts=fitting.items("mounts", _mounts(config), _size_of),
        cwd=printable(process.cwd) if config.process else None,
        devices=fitting.items("devices", linux.devices or (), lambda device: size(device.path, device.type)),
        hooks=fitting.items("hooks", _hooks(config), lambda hook: size(hook.stage, hook.path, *hook.args)),
        masked_paths=fitting.words("masked_paths", linux.masked_paths or ()),
        read_only_paths=fitting.words("read_only_paths", linux.readonly_paths or ()),
        sysctls=fitting.pairs("sysctls", linux.sysctl or {}),
        rlimits=fitting.items("rlimits", process.rlimits or (), lambda limit: size(limit.type)),
        resources=_resources(linux.resources or oci.OciResources()),
        uid_mappings=fitting.items("uid_mappings", map(_mapping, linux.uid_mappings or ()), _no_text),
        gid_mappings=fitting.items("gid_mappings", map(_mapping, linux.gid_mappings or ()), _no_text),
        oom_score_adj=process.oom_score_adj,
        truncated=fitting.cut,
    )


def process_of(
    process: oci.OciProcess,
    container: Container,
    all_capabilities: frozenset[str],
    told: environment.Names = (),
) -> Process:
    """Return the event's view of an OCI process that joins a container: its default for much.

    `told` are the variables of its environment that may be in an event.
    """
    fitting, given = Fitting(), process.capabilities
    bounding = (given.bounding or ()) if given else container.bounding_capabilities
    held = (given.effective or given.bounding or ()) if given else container.capabilities
    return Process(
        argv=fitting.words("argv", process.args or ()),
        user=user_name(process),
        cwd=printable(process.cwd),
        tty=process.terminal,
        privileged=has_all(bounding, all_capabilities),
        capabilities=fitting.words("capabilities", sorted(set(held))),
        bounding_capabilities=fitting.words("bounding_capabilities", sorted(set(bounding))),
        no_new_privileges=process.no_new_privileges,
        apparmor=_text(process.apparmor_profile) or container.apparmor,
        selinux=_text(process.selinux_label) or container.selinux,
        env=fitting.pairs("env", environment.chosen(told, process.env or (), process.args or ())),
        truncated=fitting.cut,
    )


def user_name(process: oci.OciProcess) -> str:
    """Return `UID:GID`; on Windows bundles, and nowhere else, a name."""
    return printable(process.user.username) or f"{process.user.uid}:{process.user.gid}"


# Linux 5.8 and 5.9: what Docker 20.10 calls privileged lacks them.
_UNKNOWN_TO_SOME = frozenset({"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"})


def _is_privileged(linux: oci.Linux, bounding: Iterable[str], everything: frozenset[str]) -> bool:
    rules = (linux.resources.devices if linux.resources else None) or ()
    return has_all(bounding, everything) and linux.seccomp is None and _allows_all_devices(rules)


def has_all(bounding: Iterable[str], everything: frozenset[str]) -> bool:
    """Does a bounding set hold all that the host can give?"""
    return bool(everything) and frozenset(bounding) >= everything - _UNKNOWN_TO_SOME


def _allows_all_devices(rules: Iterable[oci.DeviceRule]) -> bool:
    """Rules apply in their order: a later one may take away what an earlier one gave."""
    allowed = False
    for rule in rules:
        every = rule.type in (None, "", "a") and {rule.major, rule.minor} <= {None, 0, -1}
        if every and rule.allow:
            allowed = allowed or set(rule.access or "rwm") >= set("rwm")
        elif not rule.allow:
            allowed = False
    return allowed


def _text(given: str | None) -> str | None:
    return printable(given) if given else None


def _hooks(config: oci.Config) -> Iterator[Hook]:
    for stage, hooks in (config.hooks or {}).items():
        for hook in hooks or ():
            yield Hook(stage, hook.path, hook.args or ())


def _resources(given: oci.OciResources) -> Resources:
    memory, cpu = given.memory or oci.Memory(), given.cpu or oci.Cpu()
    pids = given.pids.limit if given.pids else None
    return Resources(
        memory=memory.limit,
        memory_swap=memory.swap,
        pids=pids,
        cpu_shares=cpu.shares,
        cpu_quota=cpu.quota,
        cpu_period=cpu.period,
        cpus=_text(cpu.cpus),
    )


def _mapping(mapping: oci.OciIdMapping) -> IdMapping:
    return IdMapping(mapping.container_id, mapping.host_id, mapping.size)


def _no_text(_: object) -> int:
    return size("", "", "")


def _mounts(config: oci.Config) -> Iterator[Mount]:
    """An overlay is followed by a mount for each directory that it is made of."""
    for mount in map(_mount, config.mounts or ()):
        yield mount
        if mount.type == "overlay" and not oci.is_bind(mount):
            for option in mount.options:
                yield from _layers(mount, option)


LAYER = "layer"
"""The type of a mount that tells a directory of which the overlay before it is made."""


def _layers(mount: Mount, option: str) -> Iterator[Mount]:
    """What the container writes goes to the upper directory."""
    name = option.partition("=")[0].rstrip("+")
    for layer in layers.overlay_layers(option):
        read_only = mount.read_only or name != "upperdir"
        yield msgspec.structs.replace(mount, type=LAYER, source=layer, options=(), read_only=read_only)


def _mount(mount: oci.OciMount) -> Mount:
    return Mount(
        source=mount.source or "",
        destination=mount.destination,
        type=mount.type or "",
        options=mount.options or (),
        read_only=_is_read_only(mount.options or ()),
    )


def _is_read_only(options: Iterable[str]) -> bool:
    """The last option counts. The recursive ones are applied after the mount, so they go first."""
    plain, recursive = False, None
    for option in options:
        if option in ("ro", "rw"):
            plain = option == "ro"
        elif option in ("rro", "rrw"):
            recursive = option == "rro"
    return plain if recursive is None else recursive


def _size_of(mount: Mount) -> int:
    return size(mount.source, mount.destination, mount.type, *mount.options)
