"""Stand-ins for the kernel: a fanotify group that remembers, a /proc that is made of files."""

from __future__ import annotations

import errno
import os
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from startgate.events import Container
from startgate.exits import Ended, Exits, Watch
from startgate.gates.context import Context
from startgate.gates.marks import PidFiles, Programs
from startgate.hold import Deadlines, Hold
from startgate.kernel.fanotify import Event, Group
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry, Key, Lifecycle
from startgate.listeners import Listeners
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command, Invocation
from startgate.workers import Workers

Inode = tuple[int, int]
RUNTIME = ProcessId(100, 1000)

only_root = pytest.mark.skipif(
    os.getuid() != 0, reason="only root's files are trusted, and only root makes such"
)


class EngineFiles:
    """An engine's files: `tree` has them by their paths; `every` is what any other file holds."""

    def __init__(self, tree: Mapping[str, bytes] | None = None, every: bytes | None = None) -> None:
        self._tree = tree or {}
        self._every = every

    def read(self, path: str, limit: int) -> bytes:
        data = self._tree.get(os.path.normpath(path), self._every)
        if data is None:
            raise FileNotFoundError(path)
        if len(data) > limit:
            raise OSError(errno.EFBIG, "too large", path)
        return data

    def read_part(self, path: str, offset: int, size: int) -> bytes:
        return self.read(path, 1 << 30)[offset : offset + size]


class FakeGroup(Group):
    """Remembers answers and marks; knows marks by inode, and fails as the kernel does."""

    def __init__(self, journal: list[tuple[str, object]] | None = None) -> None:
        self.answers: list[int] = []
        self.marks: dict[Inode, int] = {}
        self.ignored: dict[Inode, int] = {}
        self.journal = [] if journal is None else journal
        self.mark_error: OSError | None = None
        self.answered = threading.Event()
        self._waiting: queue.SimpleQueue[Event | OSError] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._fd = -1

    def open(self) -> None:
        """Be ready for events; `close` undoes it."""
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE)

    def close(self) -> None:
        """Close the fd: there is no kernel that would have to be told."""
        self.abandon()

    def raise_event(self, event: Event | OSError) -> None:
        """Let the next `read` return, or raise, this."""
        self._waiting.put(event)
        os.eventfd_write(self._fd, 1)

    def read(self) -> Event | None:
        try:
            os.eventfd_read(self._fd)
        except BlockingIOError:  # another reader was faster
            return None
        event = self._waiting.get_nowait()
        if isinstance(event, OSError):
            raise event
        return event

    def answer(self, event_fd: int, response: int) -> None:
        os.fstat(event_fd)  # the kernel knows an event by the number of its fd: it must be open still
        self.answers.append(response)
        self.journal.append(("answer", response))
        self.answered.set()

    def mark(self, mask: int, path: str) -> None:
        if self.mark_error:
            raise self.mark_error
        inode = inode_of(path)
        self.marks[inode] = self.marks.get(inode, 0) | mask

    def unmark(self, mask: int, path: str) -> None:
        inode = inode_of(path)
        if not self.marks.get(inode, 0) & mask:
            raise FileNotFoundError(errno.ENOENT, "no such mark", path)
        del self.marks[inode]
        self.journal.append(("unmark", inode))

    def ignore(self, mask: int, path: str) -> None:
        self.ignored[inode_of(path)] = mask

    def heed(self, mask: int, path: str) -> None:
        if self.ignored.pop(inode_of(path), 0) != mask:
            raise FileNotFoundError(errno.ENOENT, "no such mark", path)

    def hold(self) -> Hold:
        """Return a hold on an event of this group, with a real fd."""
        return Hold(self, any_fd())


def inode_of(path: str | Path) -> Inode:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def any_fd() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def stat_line(
    pid: int,
    *,
    comm: str = "init",
    state: str = "S",
    ppid: int = 1,
    start_time: int = 100,
    exit_code: int = 0,
) -> bytes:
    """Return a line as /proc/PID/stat has it: 52 fields (proc_pid_stat(5))."""
    fields = [state, str(ppid), *["0"] * 17, str(start_time), *["0"] * 29, str(exit_code)]
    return f"{pid} ({comm}) {' '.join(fields)}\n".encode("utf-8", "surrogateescape")


class FakeHost:
    """The root directory of a host: its /proc, and whatever else a test puts there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir(parents=True)
        self.proc = Proc(host=str(root))

    def process(
        self,
        pid: int,
        *,
        comm: str = "init",
        ppid: int = 1,
        start_time: int = 100,
        uid: int = 0,
        namespaces: Mapping[str, int] | None = None,
        root: Path | None = None,
        cwd: Path | None = None,
    ) -> Path:
        """Make a process; return its directory."""
        directory = self.root / "proc" / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "stat").write_bytes(stat_line(pid, comm=comm, ppid=ppid, start_time=start_time))
        (directory / "status").write_text(
            f"Name:\t{comm}\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{ppid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"CapEff:\t{0 if uid else 0x1FF_FFFF_FFFF:016x}\n"
        )
        for name, inode in ({"mnt": 4026531841} | dict(namespaces or {})).items():
            (directory / "ns" / f"{name}:[{inode}]").touch()  # the links of /proc lead somewhere
            (directory / "ns" / name).symlink_to(f"{name}:[{inode}]")
        (directory / "root").symlink_to(root or self.root)
        (directory / "cwd").symlink_to(cwd or root or self.root)
        return directory


def make_entry(
    identity: str = "c1",
    *,
    root: str = "/run/runc",
    command: Command = Command.CREATE,
    runtime: ProcessId = RUNTIME,
    runtime_name: str = "runc",
    pid: int | None = None,
) -> Entry:
    """Return a container that is being created."""
    return Entry(
        key=Key(root, identity),
        invocation=Invocation(command, identity),
        runtime=runtime,
        container=Container(id=identity, runtime=runtime_name, pid=pid),
        command=Hold(FakeGroup(), -1),
        told=True,
    )


class FakeSource:
    """An exec record source that knows what a test tells it."""

    name = "fake"

    def __init__(self, record: ExecRecord | None = None, pid: int = 0) -> None:
        self.record = record
        self.pid = pid

    def take(self, event: Event) -> ExecRecord | None:
        return self.record

    def table(self) -> None:
        return None

    def expect(self, names: Iterable[str]) -> None:
        return None

    def host_pid(self, event: Event, group: Group) -> int:
        return self.pid

    def pending(self, number: int, group: Group) -> int:
        return 0

    def exits(self) -> None:
        return None

    def sightings(self) -> None:
        return None

    def look(self) -> None:
        return None

    def fds(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        return None


class FakeExits:
    """Follows nobody; remembers who was to be forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[object] = []
        self.oom_victim: bool | None = None

    def was_oom_victim(self, watch: object) -> bool | None:
        return self.oom_victim

    def watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        return Watch(process, -1, ended, patient)

    def unwatch(self, watch: object) -> None:
        self.forgotten.append(watch)


def make_context(group: FakeGroup, proc: Proc | None = None, *, hold_timeout: float = 3600) -> Context:
    """Return what gates share: all real but for the kernel's parts."""
    return Context(
        proc=proc or Proc(),
        lifecycle=Lifecycle(lambda unsettled: None),
        listeners=Listeners(),
        exits=cast(Exits, FakeExits()),
        workers=Workers(),
        housekeeping=Workers(),
        deadlines=Deadlines(),
        pid_files=PidFiles(group),
        programs=Programs(group),
        capabilities=frozenset(),
        hold_timeout=hold_timeout,
    )


def running(context: Context) -> Iterator[Context]:
    """Start the threads of a context; end them. The body of a fixture."""
    context.workers.start()
    context.housekeeping.start()
    context.deadlines.start()
    yield context
    context.deadlines.close()
    context.workers.close()
    context.housekeeping.close()
    context.pid_files.close()
