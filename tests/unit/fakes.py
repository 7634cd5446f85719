"""Stand-ins for the kernel: a fanotify group that remembers, a /proc that is made of files."""

from __future__ import annotations

import errno
import itertools
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest

from startgate.events import Container
from startgate.exits import Ended, Exits, Watch
from startgate.gates.context import Context
from startgate.gates.marks import PidFiles, Programs
from startgate.hold import Hold
from startgate.keeper.group import KeptGroup
from startgate.keeper.protocol import Held, Message
from startgate.kernel.fanotify import FAN_ACCESS_PERM, FAN_ALLOW, FAN_DENY
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import Entry, Key, Lifecycle
from startgate.listeners import Listeners
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


class FakeGroup(KeptGroup):
    """Remembers what the keeper would be told; knows marks by inode, and fails as the kernel does."""

    def __init__(self, journal: list[tuple[str, object]] | None = None) -> None:
        super().__init__(lambda: None)
        self.answers: list[int] = []
        self.flags: list[tuple[int, int]] = []
        self.extended: list[tuple[int, float]] = []
        self.pongs = 0
        self.marks: dict[Inode, int] = {}
        self.ignored: dict[Inode, int] = {}
        self.journal = [] if journal is None else journal
        self.mark_error: OSError | None = None
        self.answered = threading.Event()
        self._waiting: queue.SimpleQueue[Message | Exception | None] = queue.SimpleQueue()

    def close(self) -> None:
        """Let all who receive come to the end."""
        self._waiting.put(None)

    def say(self, message: Message | Exception) -> None:
        """Let the next `receive` return, or raise, this."""
        self._waiting.put(message)

    def receive(self) -> Message | None:
        message = self._waiting.get()
        if isinstance(message, Exception):
            raise message
        if message is None:
            self._waiting.put(None)
        return message

    def answer(self, number: int, response: int) -> None:
        self.expired(number)
        self.answers.append(response)
        self.journal.append(("answer", response))
        self.answered.set()

    def flag(self, number: int, response: int) -> None:
        self.flags.append((number, response))

    def extend(self, number: int, seconds: float) -> None:
        self.extended.append((number, seconds))

    def pong(self) -> None:
        self.pongs += 1

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
        return Hold(self, held(fd=any_fd()))


_numbers = itertools.count(1)


def held(
    *,
    fd: int = -1,
    pid: int = 0,
    mask: int = FAN_ACCESS_PERM,
    record: bytes = b"",
    path: str = "",
    timeout: float = 3600,
    denies: bool = False,
) -> Held:
    """Return what the keeper says of a task that it holds since now."""
    now = time.monotonic_ns()
    due = now + int(timeout * 1e9)
    return Held(next(_numbers), pid, mask, now, due, denies=denies, record=record, path=path, fd=fd)


def expire(hold: Hold) -> None:
    """Let the keeper's deadline answer, as the hold was last flagged; tell the hold."""
    holder, denied = hold._holder, hold.fail_closed
    if not hold.answered:
        holder.answer(hold.id, FAN_DENY if denied else FAN_ALLOW)
    hold.expire(denied)


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
    flags: int = 0,
) -> bytes:
    """Return a line as /proc/PID/stat has it: 52 fields (proc_pid_stat(5))."""
    fields = [
        state,
        str(ppid),
        *["0"] * 4,
        str(flags),
        *["0"] * 12,
        str(start_time),
        *["0"] * 29,
        str(exit_code),
    ]
    return f"{pid} ({comm}) {' '.join(fields)}\n".encode("utf-8", "surrogateescape")


class FakeHost:
    """The root directory of a host: its /proc, and whatever else a test puts there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "proc").mkdir(parents=True)
        (root / "proc/self").symlink_to("1")
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
        executed: bool = False,
    ) -> Path:
        """Make a process; return its directory."""
        directory = self.root / "proc" / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "stat").write_bytes(
            stat_line(pid, comm=comm, ppid=ppid, start_time=start_time, flags=0 if executed else 0x40)
        )
        (directory / "status").write_text(
            f"Name:\t{comm}\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{ppid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"
            f"CapEff:\t{0 if uid else 0x1FF_FFFF_FFFF:016x}\n"
        )
        for name, inode in ({"mnt": 4026531841} | dict(namespaces or {})).items():
            (directory / "ns" / f"{name}:[{inode}]").touch()  # the links of /proc lead somewhere
            (directory / "ns" / name).symlink_to(f"{name}:[{inode}]")
        (directory / "mountinfo").touch()  # of a chroot: the mount that its root is on is not shown
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
        command=Hold(FakeGroup(), held()),
        told=True,
    )


class FakeExits:
    """Follows nobody; remembers who was to be forgotten."""

    def __init__(self) -> None:
        self.forgotten: list[object] = []
        self.oom_victim: bool | None = None

    def was_oom_victim(self, watch: object) -> bool | None:
        return self.oom_victim

    def watch(self, process: ProcessId, ended: Ended, *, patient: bool = False) -> Watch:
        return Watch(process, -1, ended, patient)

    def gone(self, process: ProcessId) -> int | None:
        return None

    def read_kills(self) -> None:
        pass

    def unwatch(self, watch: object) -> None:
        self.forgotten.append(watch)


def make_context(group: FakeGroup, proc: Proc | None = None) -> Context:
    """Return what gates share: all real but for the kernel's parts."""
    return Context(
        proc=proc or Proc(),
        lifecycle=Lifecycle(lambda unsettled: None),
        listeners=Listeners(),
        exits=cast(Exits, FakeExits()),
        workers=Workers(),
        housekeeping=Workers(),
        pid_files=PidFiles(group),
        programs=Programs(group),
        capabilities=frozenset(),
    )


def running(context: Context) -> Iterator[Context]:
    """Start the threads of a context; end them. The body of a fixture."""
    context.workers.start()
    context.housekeeping.start()
    yield context
    context.workers.close()
    context.housekeeping.close()
    context.pid_files.close()
