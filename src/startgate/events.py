"""The events, and the container record they carry: the contract of ``--output json``.

Unknown is None or an empty collection, never a guess. All are immutable.
"""

from __future__ import annotations

import errno
import time
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from startgate.actual import Actual as Actual
from startgate.actual import ActualMount as ActualMount
from startgate.actual import CapabilityName, NamespaceKind
from startgate.actual import HostMount as HostMount
from startgate.actual import IdMapping as IdMapping
from startgate.actual import Limits as Limits
from startgate.asked import Device as Device
from startgate.asked import Hook as Hook
from startgate.asked import Mount as Mount
from startgate.asked import Resources as Resources
from startgate.asked import Rlimit as Rlimit
from startgate.counter import Counter as Counter
from startgate.counter import Executions as Executions
from startgate.foreign import clip, json_line
from startgate.kernel.node import boot_id as this_boot
from startgate.kernel.node import name as this_node
from startgate.kernel.pidfd import open_exactly
from startgate.kernel.process import Proc, ProcessId

VERSION = 1
"""Of the contract: it changes when a field is taken away, or means something else."""

EventType = Literal[
    "creating",
    "created",
    "started",
    "exec",
    "exec_ended",
    "paused",
    "resumed",
    "oom",
    "stopped",
    "existing",
    "denied",
    "lost",
    "counted",
]
NoteAction = Literal["deny", "warn", "audit", "patch", "error"]
Gate = Literal["command", "pidfile", "start", "first-exec", "exec", "none"]

EVENT_TYPES: tuple[EventType, ...] = get_args(EventType)

OF_COMMAND = Meta(extra={"known": "command"})
"""A field that the runtime's command tells, whether or not its config.json can be read."""
AT_CREATED = Meta(extra={"known": "created"})
"""A field that is not known before `created`. A rule that asks for it is asked there."""

ContainerType = Annotated[str, Meta(extra={"words": ("sandbox", "container")})]


class Namespaces(msgspec.Struct, frozen=True):
    """Inode numbers of a process's namespaces (namespaces(7)); None on a kernel without that kind."""

    mnt: int | None = None
    net: int | None = None
    pid: int | None = None
    ipc: int | None = None
    uts: int | None = None
    user: int | None = None
    cgroup: int | None = None


class CgroupId(msgspec.Struct, frozen=True):
    """A cgroup's path below its hierarchy's root, and the inode number of its directory.

    On the unified hierarchy the number is what ``bpf_get_current_cgroup_id`` returns.
    """

    path: str
    id: int | None = None


class Caller(msgspec.Struct, frozen=True):
    """The process that executed the runtime: a shim, conmon, a shell. Host pid."""

    pid: int
    comm: str


class Ancestor(msgspec.Struct, frozen=True):
    """A process behind the runtime's: its parent, or one above. Host pid; `exe`: the file it executes."""

    pid: int
    comm: str
    exe: str | None = None


class Kubernetes(msgspec.Struct, frozen=True):
    """The pod, as the kubelet gave it to containerd or CRI-O.

    `container` is None for the sandbox itself. `attempt` counts the restarts of the container (of the
    sandbox, for a sandbox). `annotations` are the pod's; its labels are in `Container.labels`.
    """

    namespace: str | None = None
    pod: str | None = None
    pod_uid: str | None = None
    container: str | None = None
    sandbox_id: str | None = None
    container_type: ContainerType | None = None
    attempt: int | None = None
    annotations: dict[str, str] = {}


class Container(msgspec.Struct, frozen=True):
    """A container. What is known grows from `creating` to `created`.

    `pid` is the host pid of its init, `uid` the effective uid of whoever executed the
    runtime. `truncated` names the collections that are too large for an event, and lack something.
    `privileged`: every capability that the host's pid 1 may have, no seccomp
    filter, and all devices allowed, as ``docker run --privileged`` produces it.
    `host_namespaces`: kinds of namespaces (``pid``, ``net``, ...) that are the host's own.
    `image` is the engine's text, `image_reference` its full name (``docker.io/library/nginx:latest``).
    `unknown` names the fields that the engine knows, and that could not be found out here; ``mounts``:
    where one of them leads.
    `from_hooks` names the hooks of startgate's that led to it: they are not run for it again.
    `start_id`: the same in all events of one start, and in those of no other; ids are used again.
    `restart_count`: how often its engine had restarted it by itself before this start.
    `actual`: what the kernel says of its init; read only where somebody asks for it.
    `pid_start_time`: when its init started, in clock ticks since boot (/proc/PID/stat): with the pid it names
    that process, and no other that got its number later.
    """

    id: Annotated[str, OF_COMMAND]
    name: str | None = None
    engine: str | None = None
    runtime: Annotated[str | None, OF_COMMAND] = None
    runtime_path: Annotated[str | None, OF_COMMAND] = None
    pid: Annotated[int | None, AT_CREATED] = None
    bundle: Annotated[str | None, OF_COMMAND] = None
    rootfs: str | None = None
    image: str | None = None
    image_reference: str | None = None
    image_id: str | None = None
    image_digest: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    hostname: str | None = None
    kubernetes: Kubernetes | None = None
    namespaces: Annotated[Namespaces, AT_CREATED] = Namespaces()
    host_namespaces: tuple[NamespaceKind, ...] = ()
    cgroup: Annotated[CgroupId | None, AT_CREATED] = None
    rootless: Annotated[bool, OF_COMMAND] = False
    uid: Annotated[int | None, OF_COMMAND] = None
    args: tuple[str, ...] = ()
    user: str | None = None
    privileged: bool = False
    capabilities: tuple[CapabilityName, ...] = ()
    bounding_capabilities: tuple[CapabilityName, ...] = ()
    no_new_privileges: bool = False
    read_only_rootfs: bool = False
    seccomp: bool = False
    apparmor: str | None = None
    selinux: str | None = None
    mounts: tuple[Mount, ...] = ()
    cwd: str | None = None
    devices: tuple[Device, ...] = ()
    hooks: tuple[Hook, ...] = ()
    masked_paths: tuple[str, ...] = ()
    read_only_paths: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    rlimits: tuple[Rlimit, ...] = ()
    resources: Resources = Resources()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    oom_score_adj: int | None = None
    started_by: Annotated[Caller | None, OF_COMMAND] = None
    from_hooks: Annotated[tuple[str, ...], OF_COMMAND] = ()
    truncated: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    start_id: Annotated[str | None, OF_COMMAND] = None
    login_uid: Annotated[int | None, OF_COMMAND] = None
    audit_session: Annotated[int | None, OF_COMMAND] = None
    started_by_chain: Annotated[tuple[Ancestor, ...], OF_COMMAND] = ()
    actual: Annotated[Actual | None, AT_CREATED] = None
    pid_start_time: Annotated[int | None, AT_CREATED] = None
    restart_count: int | None = None

    def pidfd(self) -> int:
        """Return a pidfd of its init, which the caller owns, and which can't be another process's.

        Raises ProcessLookupError where the init has ended, or is not known yet.
        """
        if self.pid is None or self.pid_start_time is None:
            raise ProcessLookupError(errno.ESRCH, f"the init of container {self.id} is not known")
        process = ProcessId(self.pid, self.pid_start_time)
        return open_exactly(process.pid, lambda: Proc().is_alive(process))


class Process(msgspec.Struct, frozen=True):
    """A process that is executed in a running container.

    What nobody says of it is the container's. `privileged`: its bounding set holds every capability
    that the host's pid 1 may have, as of ``docker exec --privileged``. `pid`: of the host; at `exec` there
    is none yet. `env`: the variables that were chosen.
    """

    argv: tuple[str, ...] = ()
    user: str | None = None
    cwd: str | None = None
    tty: bool = False
    privileged: bool = False
    capabilities: tuple[CapabilityName, ...] = ()
    bounding_capabilities: tuple[CapabilityName, ...] = ()
    no_new_privileges: bool | None = None
    apparmor: str | None = None
    selinux: str | None = None
    from_hooks: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    pid: int | None = None
    env: dict[str, str] = {}


class Exit(msgspec.Struct, frozen=True):
    """How a container's init, or a process that was executed in it, ended: `code` or `signal` (a number),
    None where unknown; `duration`: the seconds that it lived."""

    code: int | None = None
    signal: int | None = None
    oom_killed: bool | None = None
    requested_signal: int | None = None
    duration: float | None = None


class Victim(msgspec.Struct, frozen=True):
    """A process of the container that the kernel's OOM killer ended. Host pid."""

    pid: int
    comm: str
    cgroup: CgroupId


class Reason(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why: a sentence, and the rule's name where a rule decided."""

    message: str
    rule: str | None = None


class Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a rule, a hook or a callback says of a start, whether or not it refuses it.

    `error`: it could not be decided. `patch` are the operations (RFC 6902, JSON Patch)
    that were made to config.json.
    """

    message: str
    rule: str | None = None
    action: NoteAction = msgspec.field(default_factory=lambda: "warn")  # so that it is never left out
    patch: tuple[dict[str, Any], ...] = ()


class Deny(msgspec.Struct, frozen=True):
    """What a callback returns to refuse a start; the engine's user sees a permission error."""

    message: str
    rule: str | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Something that happened to a container.

    `time` is RFC 3339, UTC, with nanoseconds. `held_us`: microseconds for which the gate
    held the start, None where nothing was held. `container` is None only for `lost` and `counted`.
    `policy`: all that rules and callbacks had to say. `version` is that of this contract: docs/events.md.
    `sequence` numbers the lines of one output; `node` and `boot_id` say whose they are. `exec_id`: the
    same in `exec` and `exec_ended` of one process, and in no other. `repeated`: it stands for so many.
    `missed`, of `lost`: how many tasks went on unseen. `lines`, of `lost` in the journal: how many lines
    it stands for, which were dropped; its `sequence` is that of the last of them.
    """

    type: EventType
    time: str = ""
    held_us: int | None = None
    gate: Gate
    container: Container | None
    process: Process | None = None
    exit: Exit | None = None
    reason: Reason | None = None
    policy: tuple[Note, ...] = ()
    version: int = msgspec.field(default_factory=lambda: VERSION)
    sequence: int | None = None
    node: str = msgspec.field(default_factory=this_node)
    boot_id: str = msgspec.field(default_factory=this_boot)
    victim: Victim | None = None
    exec_id: str | None = None
    repeated: int | None = None
    counted: Counter | None = None
    missed: int | None = None
    lines: int | None = None

    def to_json(self) -> bytes:
        """Return one line of JSON, without the newline; it is safe to print on a terminal."""
        return json_line(self)


def timestamp(nanoseconds: int | None = None) -> str:
    """Format a wall-clock time in nanoseconds (default: now) as RFC 3339 in UTC."""
    now = time.time_ns() if nanoseconds is None else nanoseconds
    seconds, rest = divmod(now, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"


printable = clip
"""Return a foreign text as events hold it: UTF-8, and no longer than `foreign.TEXT`."""
