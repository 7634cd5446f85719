"""The BPF object that records execs, loaded and attached."""

from __future__ import annotations

import collections
import os
import struct
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from startgate.errors import KernelUnsupported
from startgate.exits import OomKill
from startgate.kernel import bpf, features
from startgate.kernel.fanotify import Group
from startgate.kernel.inherited import InheritedObject
from startgate.kernel.process import ProcessFacts
from startgate.records import layout
from startgate.records.counts import MAPS as OF_COUNTS
from startgate.records.counts import BpfCounter
from startgate.records.joins import MAPS as OF_JOINS
from startgate.records.joins import BpfJoins
from startgate.records.record import Sighting

_TRACEPOINTS = (
    "enter_execve",
    "enter_execveat",
    "exit_execve",
    "exit_execveat",
    "exec_done",
    "task_exit",
    "task_forked",
    "oom_victim",
)
_KPROBES = ("pick_event", "picked_event")
_MAPS = (
    "exec_args",
    "ig_fa_records",
    "exit_status",
    "ends",
    "oom_kills",
    "runtime_names",
    "sightings",
    "looks",
    *OF_JOINS,
    *OF_COUNTS,
)
_PENDING, _LOOK, _TELL_ALL = "pending_tid", "look_at", "tell_all"
_ON_DEMAND = ("set_tracer_group", _PENDING, _LOOK, _TELL_ALL)


def object_path() -> Path:
    """Return the BPF object of this machine's architecture. Raises KernelUnsupported."""
    path = Path(__file__).parent.parent / "_bpf" / f"exec_record.{os.uname().machine}.bpf.o"
    if not path.exists():
        raise KernelUnsupported(f"the BPF object {path.name} was not built (make bpf)")
    return path


class ExecBpf:
    """The programs of bpf/exec_record.bpf.c at work for one fanotify group."""

    def __init__(
        self, group: Group | None, *, kprobes: bool, inherited: Mapping[str, int] | None = None
    ) -> None:
        """Load and attach for a group; `kprobes` adds the two that fill ``ig_fa_records``.

        Or, without one, take over what `fds` of another process's returned. Raises
        KernelUnsupported, which says what the kernel lacks.
        """
        self.object: bpf.Object | InheritedObject
        if group:
            self.object = _load(group, kprobes=kprobes)
        else:
            self.object = InheritedObject(inherited or {})

    def fds(self) -> dict[str, int]:
        """Return what keeps all of it at work when this process is gone."""
        if isinstance(self.object, InheritedObject):
            return {}
        return self.object.fds(_MAPS, (_PENDING, _LOOK, _TELL_ALL))

    def close(self) -> None:
        """Detach and unload; safe to call twice."""
        self.object.close()


def _load(group: Group, *, kprobes: bool) -> bpf.Object:
    attached = (_KPROBES if kprobes else ()) + _TRACEPOINTS
    loaded = bpf.Object(object_path(), attached + _ON_DEMAND)
    try:
        _attach(loaded, group, attached)
    except BaseException:
        loaded.close()
        raise
    return loaded


def _attach(loaded: bpf.Object, group: Group, programs: tuple[str, ...]) -> None:
    try:
        found = loaded["set_tracer_group"].run(group.fileno())
    except OSError as error:
        raise KernelUnsupported(f"BPF_PROG_TEST_RUN fails: {error.strerror}") from error
    if not found:
        raise KernelUnsupported("our own fanotify group was not found in the kernel")
    loaded.attach(*programs)


class BpfSource:
    """What the exec record sources that use BPF have in common: see ExecRecordSource."""

    name: str
    map: str
    """Of the records: a BPF map whose fd the keeper is given, under the source's name."""

    def __init__(
        self,
        group: Group | None,
        inherited: Mapping[str, int] | None = None,
        *,
        kprobes: bool = False,
    ) -> None:
        """Raises KernelUnsupported, which says what the kernel lacks."""
        self.bpf = ExecBpf(group, kprobes=kprobes, inherited=inherited)

    def keeper_fds(self) -> dict[str, int]:
        """See ExecRecordSource. In a child pid namespace events have no pid: it is looked for."""
        fds = self.bpf.fds()
        pending = {} if features.in_initial_pid_namespace() else {"pending": fds[_PENDING]}
        return {self.name: fds[self.map]} | pending

    def expect(self, names: Iterable[str]) -> None:
        """See ExecRecordSource: execs of files of other names are not recorded."""
        known = self.bpf.object.map("runtime_names")
        for name in names:
            # The same name twice is no error; one that is too long is never found.
            key = os.fsencode(name)[: layout.NAME_SIZE - 1].ljust(layout.NAME_SIZE, b"\0")
            known.insert(key, b"\1")

    def exits(self) -> BpfExits:
        """See ExecRecordSource."""
        return BpfExits(self.bpf)

    def joins(self) -> BpfJoins | None:
        """See ExecRecordSource. A daemon of a version before this one has no such programs."""
        try:
            return BpfJoins(self.bpf.object)
        except KeyError:
            return None

    def sightings(self) -> BpfSightings:
        """See ExecRecordSource."""
        return BpfSightings(self.bpf)

    def look(self) -> BpfLook | None:
        """See ExecRecordSource. In child namespaces pids and cgroups have other names than the kernel's."""
        ours = features.in_initial_pid_namespace() and features.in_initial_cgroup_namespace()
        return BpfLook(self.bpf) if ours else None

    def fds(self) -> dict[str, int]:
        """See ExecRecordSource."""
        return self.bpf.fds()

    def counter(self) -> BpfCounter | None:
        """See ExecRecordSource."""
        try:
            return BpfCounter(self.bpf.object)
        except KeyError:  # a daemon loaded an older object, and was upgraded since
            return None

    def close(self) -> None:
        """See ExecRecordSource."""
        self.bpf.close()


class BpfSightings:
    """Executions of what may be a runtime that nobody watches, from the ring buffer `sightings`."""

    _MOMENT = 2_000_000_000  # ns

    def __init__(self, exec_bpf: ExecBpf) -> None:
        self._ring = exec_bpf.object.ring("sightings", layout.SIGHTING_SIZE)
        self._tell_all = exec_bpf.object[_TELL_ALL].run

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""
        return self._ring.fileno()

    def tell_all(self) -> None:
        """See Sightings."""
        self._tell_all(self._MOMENT)

    def read(self) -> list[Sighting]:
        """Return those since the last call, oldest first."""
        return [seen for record in self._ring.read() if (seen := layout.decode_sighting(record))]

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()


class BpfLook:
    """Facts of a process, by the program `look_at`: one system call where /proc needs fifty. Thread-safe."""

    _PLACE = 0

    def __init__(self, exec_bpf: ExecBpf) -> None:
        self._run = exec_bpf.object["look_at"].run
        self._looks = exec_bpf.object.map("looks")
        self._lock = threading.Lock()

    def __call__(self, pidfd: int) -> ProcessFacts | None:
        """Return what the kernel knows of the process now; None when it is gone, or a zombie."""
        with self._lock:
            found = self._run(pidfd, self._PLACE, 0)
            value = self._looks.get(self._PLACE)
            facts = layout.decode_facts(value.raw) if found and value else None
        # A zombie has left its namespaces. No cgroup's number: its path was too long.
        return facts if facts and "mnt" in facts.namespaces and facts.cgroup_id else None


class BpfEnds:
    """The ends of processes, from the ring buffer `ends`: see exits.EndRing."""

    _END = struct.Struct("=Ii")  # struct exec_end

    def __init__(self, exec_bpf: ExecBpf) -> None:
        self._ring = exec_bpf.object.ring("ends", self._END.size)

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""
        return self._ring.fileno()

    def read(self) -> list[tuple[int, int]]:
        """Return (host pid, wait status) of those that ended since the last call."""
        return [self._END.unpack(record) for record in self._ring.read()]

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()


class BpfKills:
    """What the OOM killer ended, from the ring buffer `oom_kills`: see exits.KillRing."""

    def __init__(self, exec_bpf: ExecBpf) -> None:
        self._ring = exec_bpf.object.ring("oom_kills", layout.KILL_SIZE)

    def fileno(self) -> int:
        """Return an fd that polls readable when there are any."""
        return self._ring.fileno()

    def read(self) -> list[OomKill]:
        """Return those since the last call, oldest first."""
        return [layout.decode_kill(record) for record in self._ring.read()]

    def close(self) -> None:
        """Stop reading."""
        self._ring.close()


class BpfExits:
    """What the BPF programs on exits and on the OOM killer remember: see exits.ExitMemory."""

    _RECORD = struct.Struct("=iI")  # struct exit_record
    _VICTIMS = 1024

    def __init__(self, exec_bpf: ExecBpf) -> None:
        self._bpf = exec_bpf
        self._map = exec_bpf.object.map("exit_status")
        self._expected: collections.Counter[int] = collections.Counter()
        self._victims: dict[int, None] = {}  # of those that were taken; not all are asked for
        self._lock = threading.Lock()

    def expect(self, pid: int) -> None:
        """Remember the status of the process when it ends."""
        with self._lock:
            if not self._expected[pid]:
                self._victims.pop(pid, None)  # of a process that had this pid before
                self._map.set(pid, self._RECORD.pack(-1, 0))
            self._expected[pid] += 1

    def peek(self, pid: int) -> int | None:
        """Return the wait status."""
        with self._lock:
            return self._peek(pid)[0]

    def _peek(self, pid: int) -> tuple[int | None, bool]:
        """Return the wait status, and whether the OOM killer chose it."""
        value = self._map.get(pid)
        status, victim = (-1, 0) if value is None else self._RECORD.unpack(value.raw)
        return None if status < 0 else status, bool(victim)

    def take(self, pid: int) -> int | None:
        """Return the wait status; forget it once taken as often as expected."""
        with self._lock:
            status, victim = self._peek(pid)
            if victim:
                self._victims[pid] = None
                if len(self._victims) > self._VICTIMS:
                    del self._victims[next(iter(self._victims))]
            self._expected[pid] -= 1
            if self._expected[pid] <= 0:
                del self._expected[pid]
                self._map.delete(pid)
        return status

    def was_oom_victim(self, pid: int) -> bool:
        """Did the OOM killer choose the process, whose status was taken? Told once."""
        with self._lock:
            if pid not in self._victims:
                return False
            del self._victims[pid]
            return True

    def ends(self) -> BpfEnds:
        """Return the stream of ends."""
        return BpfEnds(self._bpf)

    def kills(self) -> BpfKills:
        """Return the stream of the OOM killer's victims."""
        return BpfKills(self._bpf)
