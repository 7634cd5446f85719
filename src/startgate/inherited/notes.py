"""What a worker of the daemon notes of each container, for the worker after it.

One small file for each, in a directory in memory that is the daemon's own. A note is written
before a gate lets the container go on, so the next worker knows what the dead one had armed,
and follows what it followed. Written on workers only.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator

import msgspec

from startgate.events import Container
from startgate.gates.marks import Inode, PidFiles, Programs
from startgate.inherited.holding import PREFIX
from startgate.kernel.pids import PidNamespace
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, Key, State
from startgate.listeners import Deny
from startgate.runtimes import commandline, state
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.log import RuntimeLog

log = logging.getLogger(__name__)

IN_FORCE = "in-force"
"""The file beside the notes that `kept` is for."""
_UNFINISHED = ".new"
_NAME = re.compile(r"\d+-\d+", re.ASCII)


def create(parent: str) -> tuple[str, int]:
    """Make the directory of one daemon; return its path, and an fd whose lock lasts as the daemon does.

    Those of daemons that were killed are removed: nobody holds their lock any more. Raises OSError.
    """
    os.makedirs(parent, mode=0o700, exist_ok=True)
    lock = _open(parent)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one at a time, or one's new directory may look abandoned
        for entry in os.scandir(parent):
            if entry.name.startswith(PREFIX):
                _remove_abandoned(entry.path)
        path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        fd = _open(path)
        fcntl.flock(fd, fcntl.LOCK_EX)
        return path, fd
    finally:
        os.close(lock)


def _remove_abandoned(path: str) -> None:
    fd = _open(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path, ignore_errors=True)
    except BlockingIOError:
        log.debug("another daemon keeps its notes in %s", path)
    finally:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:  # a directory of somebody's
        log.warning("a note of the worker before can't be removed: %s", error)


def _open(directory: str) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


class Noted(msgspec.Struct, frozen=True):
    """An `Entry` as far as it can be told in a file; told, unless it says `untold`.

    Names are bytes: those of files need not be UTF-8, and JSON takes nothing else.
    """

    root: bytes
    id: bytes
    root_seen: bytes
    """The state directory as the runtime names it."""
    arguments: list[bytes]
    """The runtime's command line; empty where it was not seen."""
    runtime: ProcessId
    container: Container
    state: str
    gated: bool
    init: ProcessId | None = None
    requested_signal: int | None = None
    pids: PidNamespace | None = None
    namespaces: dict[str, int] = {}
    verdict: tuple[str, str | None] | None = None
    """Message and rule of a `Deny` that is due at the first exec."""
    pid_file: tuple[Inode, bytes, bytes] | None = None
    """The directory's inode and path, and the file's name."""
    program: tuple[Inode, bytes] | None = None
    spare: bool = False
    untold: bool = False
    log: tuple[bytes, RuntimeLog] | None = None
    """Its path, and the rest."""

    def _parsed(self) -> Invocation | None:
        path = self.container.runtime_path or ""
        return commandline.parse(self.arguments, path) if self.arguments else None

    def entry(self) -> Entry:
        """Return the entry, with nothing armed and nothing watched."""
        key = Key(os.fsdecode(self.root), os.fsdecode(self.id))
        call = Invocation(Command.CREATE, key.id, root=key.root)
        return Entry(
            key=key,
            root=os.fsdecode(self.root_seen),
            pids=self.pids,
            namespaces=self.namespaces,
            invocation=self._parsed() or call,
            arguments=self.arguments,
            runtime=self.runtime,
            container=self.container,
            command=None,
            state=State[self.state],
            passed=self.state != State.CREATING.name,  # it was told, or the worker died as it was
            gated=self.gated,
            told=not self.untold,
            requested_signal=self.requested_signal,
            flavour=state.flavour(self.container.runtime or ""),
            verdict=Deny(*self.verdict) if self.verdict else None,
            spare=self.spare,
            log=msgspec.structs.replace(self.log[1], path=os.fsdecode(self.log[0])) if self.log else None,
        )


_decoder = msgspec.json.Decoder(Noted)


class Notes:
    """The notes of one daemon. Without a directory nothing is noted: a lone watcher needs none."""

    def __init__(self, directory: str = "") -> None:
        self._directory = directory
        self._lock = threading.Lock()

    def save(self, entry: Entry, pid_files: PidFiles, programs: Programs, *, untold: bool = False) -> None:
        """Write down what the next worker must know of a container."""
        if not self._directory:
            return
        init = entry.init_watch.process if entry.init_watch else None
        verdict = (entry.verdict.message, entry.verdict.rule) if entry.verdict else None
        pid_file, program = pid_files.place(entry), programs.place(entry)
        note = Noted(
            root=os.fsencode(entry.key.root),
            id=os.fsencode(entry.key.id),
            root_seen=os.fsencode(entry.root),
            untold=untold,
            pids=entry.pids,
            namespaces=entry.namespaces,
            arguments=entry.arguments,
            runtime=entry.runtime,
            container=entry.container,
            state=entry.state.name,
            gated=entry.gated,
            init=init,
            requested_signal=entry.requested_signal,
            verdict=verdict,
            pid_file=(pid_file[0], os.fsencode(pid_file[1]), os.fsencode(pid_file[2])) if pid_file else None,
            program=(program[0], os.fsencode(program[1])) if program else None,
            spare=entry.spare,
            log=(os.fsencode(entry.log.path), msgspec.structs.replace(entry.log, path=""))
            if entry.log
            else None,
        )
        with self._lock:
            if entry.state is not State.STOPPED:
                self._write(self._path(entry), note)

    def _write(self, path: str, note: Noted) -> None:
        """Whole or not at all: we may die at any moment."""
        try:
            data = msgspec.json.encode(note)
            with open(path + _UNFINISHED, "wb") as file:
                file.write(data)
            os.rename(path + _UNFINISHED, path)
        except (OSError, UnicodeError) as error:
            log.warning("not noted, so a further worker would not know of it: %s", error)

    def drop(self, entry: Entry) -> None:
        """The container's end was told."""
        if self._directory:
            with self._lock:
                try:
                    os.unlink(self._path(entry))
                except OSError as error:
                    log.debug("dropping a note: %s", error)

    def __iter__(self) -> Iterator[Noted]:
        """Yield the notes of a worker before us, oldest first; those half written are dropped."""
        names = self._names() if self._directory else []
        for name in sorted(names, key=lambda name: [int(part) for part in name.split("-")]):
            path = os.path.join(self._directory, name)
            try:
                with open(path, "rb") as file:
                    yield _decoder.decode(file.read())
            except (OSError, msgspec.MsgspecError) as error:
                log.warning("a note of the worker before can't be read: %s", error)
                _remove(path)

    def _names(self) -> list[str]:
        """Return the file names of whole notes. Remove what was being written when its worker died: a gate
        lets a task go only after its note is whole, so the note before it is still true. Other files stay."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)  # somebody tidied up
        names = os.listdir(self._directory)
        for name in names:
            base = name.removesuffix(_UNFINISHED)
            if base != name and (base == IN_FORCE or _NAME.fullmatch(base)):
                _remove(os.path.join(self._directory, name))
        return [name for name in names if _NAME.fullmatch(name)]

    def _path(self, entry: Entry) -> str:
        """Named by the runtime process: each start has one of its own."""
        return os.path.join(self._directory, f"{entry.runtime.start_time}-{entry.runtime.pid}")
