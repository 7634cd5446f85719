"""`oom`: the kernel's OOM killer has ended a process of a container, whichever it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from msgspec.structs import replace

from startgate.events import CgroupId, Container, Victim, printable
from startgate.exits import ExitMemory, OomKill
from startgate.gates.context import Context, event
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, Lifecycle

_REMEMBERED = 256


class OutOfMemory:
    """Tells whose process was killed. Works on the exits' thread: never waits."""

    def __init__(self, context: Context, memory: ExitMemory | None) -> None:
        """Without a `memory` (no BPF) nothing is told."""
        self._context = context
        self.lifecycles: list[Lifecycle] = [context.lifecycle]
        """Of those containers that are told of."""
        self._told: deque[ProcessId] = deque(maxlen=_REMEMBERED)
        if memory:
            context.exits.kills(memory.kills(), self.tell)

    def tell(self, kill: OomKill) -> None:
        """Publish `oom`, if it is known whose process that was."""
        if kill.process in self._told:  # of a process that is ending further threads may be chosen
            return
        self._told.append(kill.process)
        entries = [entry for lifecycle in self.lifecycles for entry in lifecycle.containers()]
        if entry := owner(kill, entries, self._context.proc.host_namespaces().get("pid")):
            cgroup = CgroupId(printable(kill.facts.cgroup), kill.facts.cgroup_id)
            victim = Victim(kill.pid, printable(kill.comm), cgroup)
            self._context.listeners.publish(replace(event("oom", "none", entry.container), victim=victim))


def owner(kill: OomKill, entries: Iterable[Entry], host: int | None) -> Entry | None:
    """Return the container whose process it was; None: none, or it can't be told.

    `host` is the host's pid namespace. A cgroup alone proves little: a runtime may leave a container in
    its caller's, and there may be others in it. So its namespaces have to be the container's, too.
    """
    found: list[tuple[tuple[int, int], Entry]] = []
    for entry in entries:
        init = entry.init_watch.process if entry.init_watch else None
        if init == kill.process:
            return entry
        if rank := _rank(kill, entry.container, host):
            found.append((rank, entry))
    if not found:
        return None
    best = max(rank for rank, _ in found)
    nearest = [entry for rank, entry in found if rank == best]
    return nearest[0] if len(nearest) == 1 else None


def _rank(kill: OomKill, container: Container, host: int | None) -> tuple[int, int] | None:
    """How near it is, by the depth of its cgroup and of its pid namespace; None: it is not in there."""
    path = container.cgroup.path if container.cgroup else "/"
    within = f"{printable(kill.facts.cgroup)}/".startswith(f"{path.rstrip('/')}/")
    theirs = container.namespaces
    if not within or theirs.pid is None:
        return None
    if theirs.pid != host:
        levels = kill.pid_namespaces
        return (len(path), -levels.index(theirs.pid)) if theirs.pid in levels else None
    alone = path != "/" and theirs.mnt == kill.facts.namespaces.get("mnt")
    return (len(path), -len(kill.pid_namespaces)) if alone else None
