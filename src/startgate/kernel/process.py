"""What /proc tells of a process: proc_pid_stat(5), namespaces(7), cgroups(7).

Nothing here waits for a foreign file system, but for what reads a process's memory (`arguments`,
`arguments_at`, `command_line`): that may fault in a page that a FUSE server or userfaultfd provides.
Never call it on a reading thread.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from startgate.errors import NotReadable
from startgate.kernel import pidfd
from startgate.kernel.cgroups import parse_cgroup, parse_cgroup_mounts, unified_path
from startgate.kernel.memory import execve_argv_index, read_strings

_PF_FORKNOEXEC = 0x40  # <linux/sched.h>: "forked but didn't exec"; execve(2) clears it
NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "user", "cgroup")


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that serve us."""

    comm: str
    state: str
    ppid: int
    start_time: int
    """In clock ticks since boot: with the pid it names one process for ever."""
    exit_code: int
    """A wait status, once the process is a zombie (else 0, or hidden from us)."""
    flags: int = 0
    """The kernel's PF_ flags."""

    @property
    def executed(self) -> bool:
        """Has it executed a program since it was forked? An init that waits to do so has not."""
        return not self.flags & _PF_FORKNOEXEC


class ProcessId(NamedTuple):
    """A process that no other can be confused with."""

    pid: int
    start_time: int
    """In clock ticks since boot."""


class ProcessFacts(NamedTuple):
    """What BPF tells of a process in one look, instead of a dozen files of /proc."""

    start_time: int
    """In clock ticks since boot."""
    namespaces: dict[str, int]
    cgroup: str
    """The path in the unified hierarchy, from its root."""
    cgroup_id: int


_OWN_MOUNTS = os.stat("/proc/self/ns/mnt").st_ino
_TICKS = os.sysconf("SC_CLK_TCK")


def start_ticks(nanoseconds: int) -> int:
    """Return a start time of the kernel's as /proc/PID/stat has it for us (nsec_to_clock_t())."""
    return (nanoseconds + _boottime_offset()) // (1_000_000_000 // _TICKS)


@cache
def _boottime_offset() -> int:
    """Return what our time namespace adds to CLOCK_BOOTTIME, in ns: time_namespaces(7)."""
    try:
        text = Path("/proc/self/timens_offsets").read_text()
    except OSError:  # a kernel without them
        return 0
    seconds, nanoseconds = text.partition("boottime")[2].split()[:2]
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def boot_seconds(process: ProcessId) -> float:
    """Return when the process started, on CLOCK_BOOTTIME."""
    return process.start_time / _TICKS


class Cgroup(NamedTuple):
    """A cgroup: its path below the hierarchy's root and the inode number of its directory."""

    path: str
    id: int | None


class Proc:
    """The host's processes. `host` is where the host's root directory is mounted."""

    def __init__(self, host: str = "/") -> None:
        self.host = host
        self.root = os.path.join(host, "proc")
        self.look: Callable[[int], ProcessFacts | None] | None = None
        """Tells at once what is asked of a process most, given its pidfd; None: read it here."""
        self._hierarchies: dict[str, str] | None = None
        self._host_namespaces: dict[str, int] | None = None

    def stat(self, pid: int) -> Stat:
        """Raises NotReadable when the process is gone."""
        return parse_stat(self.read(pid, "stat"))

    def identify(self, pid: int) -> ProcessId:
        """Return the process that has this pid now. Raises NotReadable."""
        return ProcessId(pid, self.stat(pid).start_time)

    def environment(self, pid: int) -> dict[str, str]:
        """Return the beginning of the environment that a process was executed with. Raises NotReadable."""
        pairs = (word.partition("=") for word in os.fsdecode(self.read(pid, "environ")).split("\0"))
        return {name: value for name, _, value in pairs if name}

    def is_alive(self, process: ProcessId) -> bool:
        """Does that very process still run? A zombie does not."""
        try:
            stat = self.stat(process.pid)
        except NotReadable:
            return False
        return stat.start_time == process.start_time and stat.state not in "ZX"

    def start_time(self, pid: int) -> int | None:
        """Return the start time in clock ticks since boot, None when the process is gone."""
        try:
            return self.stat(pid).start_time
        except NotReadable:
            return None

    def status(self, pid: int) -> dict[str, str]:
        """Return /proc/PID/status as a mapping. Raises NotReadable."""
        text = self.read(pid, "status").decode(errors="replace")
        pairs = (line.partition(":") for line in text.splitlines())
        return {name: value.strip() for name, _, value in pairs}

    def place(self, process: ProcessId) -> tuple[dict[str, int], Cgroup]:
        """Return the namespaces and the cgroup of a process. Raises NotReadable when it is gone.

        Its pid may be another's by then: look again after this.
        """
        facts = self._look_at(process)
        if facts is None or facts.cgroup == "/":  # it may be in a v1 hierarchy
            return self.namespaces(process.pid), self.cgroup(process.pid)
        return facts.namespaces, Cgroup(facts.cgroup, facts.cgroup_id)

    def _look_at(self, process: ProcessId) -> ProcessFacts | None:
        if self.look is None:
            return None
        try:
            fd = pidfd.open_process(process.pid)
        except OSError:
            return None
        try:
            facts = self.look(fd)
        finally:
            os.close(fd)
        return facts if facts and facts.start_time == process.start_time else None

    def namespaces(self, pid: int) -> dict[str, int]:
        """Return the inode number of each namespace. Raises NotReadable when the process is gone."""
        try:
            directory = os.open(f"{self.root}/{pid}/ns", os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            raise NotReadable(f"process {pid} is gone") from error
        try:  # from the directory: a third of the time of seven paths
            return _namespaces(directory)
        except OSError as error:
            raise NotReadable(f"the namespaces of process {pid}: {error.strerror}") from error
        finally:
            os.close(directory)

    def host_namespaces(self) -> dict[str, int]:
        """Return those of the host's pid 1; our own where its are hidden from us (ptrace(2)).

        They are read once: pid 1 does not move.
        """
        if self._host_namespaces is None:
            try:
                self._host_namespaces = self.namespaces(1)
            except NotReadable:
                self._host_namespaces = self.namespaces(int(os.readlink(f"{self.root}/self")))
        return self._host_namespaces

    def namespace(self, pid: int, name: str) -> int | None:
        """Return the inode number of one namespace; None on a kernel without that kind.

        Raises NotReadable when the process is gone: a zombie has none.
        """
        try:
            link = os.readlink(f"{self.root}/{pid}/ns/{name}")
        except FileNotFoundError:
            if not os.path.exists(f"{self.root}/{pid}/ns/mnt"):
                raise NotReadable(f"process {pid} is gone") from None
            return None
        except OSError as error:
            raise NotReadable(f"the namespaces of process {pid}: {error.strerror}") from error
        return int(link[link.index("[") + 1 : -1])

    def is_initial_user_namespace(self, pid: int) -> bool:
        """Is the process in the user namespace that we are in? Ours is the initial one:
        fanotify permission events need CAP_SYS_ADMIN there (fanotify_init(2))."""
        return self.namespace(pid, "user") == self._own_user_namespace()

    def _own_user_namespace(self) -> int:
        return os.stat("/proc/self/ns/user").st_ino

    def cgroup(self, pid: int) -> Cgroup:
        """Return the cgroup of a living process. Raises NotReadable.

        The unified hierarchy (v2) is preferred; a process in its root is looked for in
        the v1 hierarchies, as crun and older engines leave it on a hybrid host.
        """
        text = self.read(pid, "cgroup").decode(errors="surrogateescape")
        kind, path = "", unified_path(text)
        if path == "/":
            kind, path = next((own for own in parse_cgroup(text) if own[1] != "/"), ("", "/"))
        try:
            return Cgroup(path, os.stat(self.hierarchy(kind) + path).st_ino)
        except (OSError, KeyError, ValueError):
            return Cgroup(path, None)

    def hierarchy(self, kind: str) -> str:
        """Return where a cgroup hierarchy is mounted here. Raises KeyError where it is not, OSError."""
        if self._hierarchies is None:
            text = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
            self._hierarchies = parse_cgroup_mounts(text, self.host)
        return self._hierarchies[kind]

    def working_directory(self, tid: int) -> str:
        """Return a task's working directory, as the host names it. Raises NotReadable."""
        try:
            path = os.readlink(f"{self.root}/{tid}/cwd")
        except OSError as error:
            raise NotReadable(f"the task {tid} is gone") from error
        return self.on_host(path)

    def on_host(self, path: str) -> str:
        """Return how the host names what a link of /proc names to us."""
        ours = self.host.rstrip("/")
        return (path.removeprefix(ours) or "/") if f"{path}/".startswith(f"{ours}/") else path

    def sees_host(self, tid: int, mounts: int | None = None) -> bool:
        """Do paths lead the task where they lead the host's pid 1, or us? Raises NotReadable.

        `mounts` is its mount namespace, where that is known.
        """
        try:
            root = os.readlink(f"{self.root}/{tid}/root")
        except OSError as error:
            raise NotReadable(f"the task {tid} is gone") from error
        if self.on_host(root) != "/":
            return False
        return (mounts or self.namespace(tid, "mnt")) in (_OWN_MOUNTS, self.host_namespaces().get("mnt"))

    def executable(self, pid: int) -> str | None:
        """Return the path of what the process executes, None when it is gone or has none."""
        try:
            return os.readlink(f"{self.root}/{pid}/exe")
        except OSError:
            return None

    def command_line(self, pid: int) -> list[str]:
        """Return what the process was executed with, empty when it is gone.

        It is in the process's memory, which may be slow to fault in: not on a reading thread.
        """
        try:
            data = self.read(pid, "cmdline")
        except NotReadable:
            return []
        return [os.fsdecode(word) for word in data.split(b"\0")[:-1]]

    def arguments(self, tid: int) -> list[bytes]:
        """Return the arguments of the execve in which the thread is held.

        Raises NotReadable when the thread is not (yet) seen in execve, or is gone.
        """
        fields = self.read(tid, "syscall").split()
        at = execve_argv_index(fields)
        if at is None:
            raise NotReadable(f"thread {tid} is not blocked in execve")
        return self.arguments_at(tid, int(fields[1 + at], 16))

    def arguments_at(self, tid: int, argv: int) -> list[bytes]:
        """Return the NULL-terminated array of strings at the address `argv`. Raises NotReadable."""
        try:
            fd = os.open(f"{self.root}/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotReadable(f"the memory of thread {tid}: {error.strerror}") from error
        try:
            return read_strings(fd, argv)
        except (OSError, OverflowError) as error:
            raise NotReadable(f"the memory of thread {tid}: {error}") from error
        finally:
            os.close(fd)

    def read(self, pid: int, name: str) -> bytes:
        """Return the first 64 KiB of a file of /proc/PID. Raises NotReadable."""
        try:
            fd = os.open(f"{self.root}/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise NotReadable(f"process {pid} is gone") from error
        try:
            return os.read(fd, 1 << 16)
        except OSError as error:
            raise NotReadable(f"process {pid} is gone") from error
        finally:
            os.close(fd)


def _namespaces(directory: int) -> dict[str, int]:
    """Return the inode numbers of the namespaces that this kernel has. Raises OSError."""
    found = {}
    for name in NAMESPACES:
        try:
            found[name] = int(os.readlink(name, dir_fd=directory)[len(name) + 2 : -1])  # net:[4026531840]
        except FileNotFoundError:
            os.stat("mnt", dir_fd=directory)  # if that is gone too, the process is
    return found


def parse_stat(line: bytes) -> Stat:
    """Parse /proc/PID/stat: the comm may hold spaces and parentheses. Raises NotReadable on junk."""
    try:
        opened, closed = line.index(b"("), line.rindex(b")")
        rest = line[closed + 2 :].split()
        comm = line[opened + 1 : closed].decode(errors="replace")
        exit_code = int(rest[49]) if len(rest) > 49 else 0
        return Stat(comm, rest[0].decode(), int(rest[1]), int(rest[19]), exit_code, int(rest[6]))
    except (ValueError, IndexError) as error:
        raise NotReadable("a stat line of an unknown format") from error
