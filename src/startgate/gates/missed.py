"""Runtime commands that were not held, as nobody watched their file: found, watched, and made up for.

BPF tells of executions that look like a runtime's (`records.Sightings`). The file is marked, so the
next one is held; of this one the container is told late (`creating`, gate none, with a reason), and
the gates that are still ahead of it are armed: most are held before their program runs all the same.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from msgspec.structs import replace

from startgate.errors import BundleError, NotReadable, Overloaded
from startgate.events import Reason, printable
from startgate.gates import inits, keys
from startgate.gates.begin import entry_of, start_of
from startgate.gates.callers import line_of
from startgate.gates.command import CommandGate
from startgate.gates.context import Context
from startgate.gates.view import View
from startgate.kernel import files, layers
from startgate.listeners import lost
from startgate.records import ExecRecord, ExecRecordSource, Sighting, Sightings
from startgate.runtimes import oci, sighted
from startgate.runtimes.commandline import Invocation
from startgate.runtimes.find import RuntimeBinaries

log = logging.getLogger(__name__)

_PATIENCE = 2.0
_POLL = 0.02
_STATE_LIMIT = 20.0
_GATE_LIMIT = 0.3

ONLY_BELOW = "STARTGATE_SIGHTINGS"
"""In this directory alone are runtimes that nobody knew looked for: for tests beside others' containers."""


def watching(
    context: Context, source: ExecRecordSource, gate: CommandGate, binaries: RuntimeBinaries
) -> ExitStack:
    """Follow what becomes a runtime from now on; called right after `mark_all`. Close what it returns."""
    parts = ExitStack()
    binaries.marked = lambda: source.expect(binaries.names)
    binaries.marked()
    if sightings := source.sightings():
        missed = Missed(context, gate, binaries, sightings)
        parts.callback(missed.close)
        missed.start()
    binaries.start()
    return parts


class Missed:
    """Follows the sightings on a thread of its own; reads files on workers."""

    def __init__(
        self, context: Context, gate: CommandGate, binaries: RuntimeBinaries, sightings: Sightings
    ) -> None:
        """`sightings` are closed with this."""
        self._context = context
        self._gate = gate
        self._binaries = binaries
        self._sightings = sightings
        self._own = os.stat("/proc/self/ns/mnt").st_ino
        self._only_below = os.environ.get(ONLY_BELOW, "/").rstrip("/") + "/"
        self._stop = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._live, name="startgate-missed", daemon=True)

    def start(self) -> None:
        """Begin, right after the binaries were marked; what was executed since the BPF programs were
        attached is looked into, too: nobody was there while a worker was replaced."""
        self._binaries.marking = self._sightings.tell_all
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        os.eventfd_write(self._stop, 1)
        if self._thread.ident is not None:
            self._thread.join(_PATIENCE)
        self._binaries.marking = lambda: None
        self._sightings.close()
        os.close(self._stop)

    def _live(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._context.failed(f"the thread that finds runtimes by their use died: {error!r}")

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._stop, select.POLLIN)
        poll.register(self._sightings.fileno(), select.POLLIN)
        while self._stop not in [fd for fd, _ in poll.poll()]:
            for seen in self._sightings.read():
                self._on_sighting(seen)

    def _on_sighting(self, seen: Sighting) -> None:
        """By a runtime's name it is marked at once; what has to be looked into is for a worker."""
        path, named = self._watch(seen, self._is_named)
        may_start = sighted.start(seen.record.arguments) or not seen.record.complete
        if may_start and path.startswith(self._only_below):
            self._context.workers.submit(lambda: self._adopt(seen, path, named=named))

    def _is_named(self, path: str) -> bool:
        return path.startswith(self._only_below) and os.path.basename(path) in self._binaries.names

    def _watch(self, seen: Sighting, wanted: Callable[[str], bool]) -> tuple[str, bool]:
        """Mark the file, if its path is one that is `wanted`; return the path, and whether it is.

        It waits for no file system: what a process executes is found without a look-up.
        """
        path = os.fsdecode(seen.path)
        try:
            fd = self._open(seen)
        except OSError as error:
            found = wanted(path)
            ours = seen.record.namespaces.get("mnt") == self._own
            if found and ours and error.errno == errno.ENOENT and path.startswith("/"):
                self._binaries.add(path)
            return path, found
        try:
            path = _path(fd) or path
            if found := wanted(path):
                self._binaries.add_file(fd, path, f"{self._context.proc.root}/{seen.record.tgid}")
            return path, found
        except OSError as error:
            log.error("%s, which executes containers, is not watched: %s", path, error)
            return path, True
        finally:
            os.close(fd)

    def _open(self, seen: Sighting) -> int:
        """Open (O_PATH) what was executed.

        Raises OSError: ENOENT where the process is gone, or executes something else by now; EXDEV
        where its file system may not answer: then it can't be watched.
        """
        process, host = f"{self._context.proc.root}/{seen.record.tgid}", self._context.proc.host
        fd = os.open(f"{process}/exe", os.O_PATH | os.O_CLOEXEC)
        try:
            if layers.may_not_answer(fd, process, host):
                raise OSError(errno.EXDEV, "on a network or FUSE file system")
            # The kernel's number of an overlay's file may differ from the one that stat(2) tells.
            if os.fstat(fd).st_ino != seen.inode and files.type_of(fd) != files.OVERLAY:
                raise OSError(errno.ENOENT, "it executes something else by now")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _adopt(self, seen: Sighting, path: str, *, named: bool) -> None:
        record, call = seen.record, None
        if seen.watched:  # most likely it was held, and its gate may be at work still
            time.sleep(_GATE_LIMIT)
        try:
            call = sighted.start(record.arguments)
            if record.process != self._context.proc.identify(record.tgid):
                raise NotReadable(f"process {record.tgid} has ended")
            record = self._complete(record)
            call = sighted.start(record.arguments)
            if call and (named or self._is_runtime(call, path, record)):
                if not named:
                    self._watch(seen, lambda path: True)
                self._tell(call, path, record)
        except (NotReadable, Overloaded, OSError) as error:
            if call and (named or call.bundle):
                self._context.listeners.publish(lost(_untold(call, path, str(error)), 1))

    def _complete(self, record: ExecRecord) -> ExecRecord:
        if record.complete:
            return record
        words = self._context.proc.command_line(record.tgid)
        return replace(record, arguments=[os.fsencode(word) for word in words], complete=True)

    def _is_runtime(self, call: Invocation, path: str, record: ExecRecord) -> bool:
        """Other programs have a `run`, too: it is one if it is given a bundle, or makes a container."""
        try:
            with View(self._context.proc, record.tid, record.ppid) as view:
                bundle = view.absolute(call.bundle or ".")
                config, _ = view.read_config(view.absolute(call.config or oci.CONFIG, bundle))
        except BundleError:
            return False
        if config.root is None and config.process is None:
            return False
        return bool(call.bundle) or self._makes_container(call, path, record)

    def _makes_container(self, call: Invocation, path: str, record: ExecRecord) -> bool:
        if record.process is None:
            return False
        named = keys.look_up(self._context.proc, call, path, record)
        start = start_of(self._context, call, path, record, None, named=named)
        entry = entry_of(self._context, start, path, record, line_of(self._context.proc, record))
        until = time.monotonic() + _STATE_LIMIT
        while time.monotonic() < until and not self._context.workers.closed:
            alive = self._context.proc.is_alive(record.process)  # first: it may write its state, and end
            if inits.by_state(self._context.proc, entry):
                return True
            if not alive:
                break
            time.sleep(_POLL)
        return False

    def _tell(self, call: Invocation, path: str, record: ExecRecord) -> None:
        reason = f"{printable(path)} was not watched when it was executed: this start was not held"
        self._gate.missed(call, path, record, Reason(reason))


def _path(fd: int) -> str | None:
    """Return the path of an open file; None where it has none: crun executes a clone of itself."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    return None if path == "/" or path.startswith("/memfd:") else path


def _untold(call: Invocation, path: str, error: str) -> str:
    told = f"{path} started the container {call.id} before it was watched; what became of it is not known"
    return printable(f"{told}: {error}")
