"""The command gate: each execution of a runtime binary, held in its execve."""

from __future__ import annotations

import os
from collections import OrderedDict

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job, key_of
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.gates.executing import Executing
from startgate.hold import Hold
from startgate.kernel.fanotify import Event, Group
from startgate.kernel.process import Proc, ProcessId
from startgate.lifecycle import State
from startgate.records import ExecRecord, ExecRecordSource, procfs
from startgate.runtimes import commandline
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.signals import signal_number


class CommandGate:
    """Decides on each runtime command: on the reading thread, where that needs no waiting."""

    def __init__(self, context: Context, group: Group, source: ExecRecordSource, created: Created) -> None:
        self._context = context
        self._group = group
        self._source = source
        self._created = created
        self._creating = Creating(context, created)
        self._executing = Executing(context)
        self._repeats = Repeats(context.proc)
        for entry in context.lifecycle.containers():
            if entry.command is None and entry.state is State.CREATING:
                self._repeats.remember(entry.runtime, entry.arguments, Hold.answered_before(group))

    def decide(self, event: Event, hold: Hold) -> Job | None:
        """Return what is to be done while the task is held; None: nothing. Never waits."""
        record = self._source.take(event)
        if record is None:
            tid = self._source.host_pid(event, self._group)
            if not tid:
                raise NotReadable("the held task was not found in the fanotify group")
            record = procfs.identify(self._context.proc, tid)
        if not record.trusted:
            return None  # only root may make us open and mark files, or believe an id
        if not record.complete:
            return lambda: self._read_and_decide(record, hold)
        return self._on_arguments(record, hold)

    def _read_and_decide(self, record: ExecRecord, hold: Hold) -> None:
        """On a worker: read the arguments from the held task first."""
        job = self._on_arguments(procfs.complete(self._context.proc, record), hold)
        if job:
            job()
        else:
            hold.allow()

    def _on_arguments(self, record: ExecRecord, hold: Hold) -> Job | None:
        call = commandline.parse(record.arguments)
        if call.command is Command.OTHER:
            return None
        path = self._runtime_path(record, hold)
        if os.path.basename(path) == "conmon":
            return None  # it executes the runtime, which is held
        if call.command is Command.KILL:
            self._context.lifecycle.signal(key_of(call, path), signal_number(call.signal))
            return None
        if call.command is Command.START:
            return self._on_start(call, path, hold)
        if self._repeats.seen(record, hold):
            return None
        executing = call.command is Command.EXEC
        hold.fail_closed = self._context.listeners.fails_closed("exec" if executing else "creating")
        work = self._executing.at_command if executing else self._creating.at_command
        return lambda: work(call, path, record, hold)

    def _runtime_path(self, record: ExecRecord, hold: Hold) -> str:
        """Return the binary's path on the host; argv[0] where it has none, or it is not known.

        A file on a detached mount reads as `/`: crun's clone of itself.
        """
        try:
            with hold.fd() as fd:
                path = os.readlink(f"/proc/self/fd/{fd}")
        except NotReadable:
            path = "/"
        if path == "/":
            return os.fsdecode(record.arguments[0])
        host = self._context.proc.host.rstrip("/")
        return path.removeprefix(host) if path.startswith(host + "/") else path

    def _on_start(self, call: Invocation, path: str, hold: Hold) -> Job | None:
        entry = self._context.lifecycle.to_start(key_of(call, path))
        if entry is None or entry.state is State.STOPPED:
            return None
        return lambda: self._created.at_start(entry, hold)


class Repeats:
    """Tells the second event of one command: crun executes itself again, from a clone, and
    wrappers (nvidia-container-runtime) execute the runtime, in their place or as a child.

    A command that was denied is no such: its process may try again, and is judged again.
    """

    _SIZE = 1024

    def __init__(self, proc: Proc) -> None:
        self._proc = proc
        self._last: OrderedDict[ProcessId, tuple[int, Hold]] = OrderedDict()

    def seen(self, record: ExecRecord, hold: Hold) -> bool:
        """Was this very process, or its parent, let go with the same arguments before?"""
        try:
            process = self._proc.identify(record.tgid)
        except NotReadable:
            return False
        arguments = _hash(record.arguments)
        if self._was(process, arguments, hold) or self._was(self._parent(record), arguments, hold):
            return True
        self.remember(process, record.arguments, hold)
        return False

    def remember(self, process: ProcessId, arguments: list[bytes], hold: Hold) -> None:
        """The process came with these arguments, and `hold` tells what was answered."""
        self._last[process] = (_hash(arguments), hold)
        if len(self._last) > self._SIZE:
            self._last.popitem(last=False)

    def _was(self, process: ProcessId | None, arguments: int, hold: Hold) -> bool:
        same, before = self._last.get(process, (0, hold)) if process else (0, hold)
        return same == arguments and not before.denied

    def _parent(self, record: ExecRecord) -> ProcessId | None:
        try:
            return self._proc.identify(record.ppid)
        except NotReadable:
            return None


def _hash(arguments: list[bytes]) -> int:
    """They may be megabytes; argv[0] is the wrapper's."""
    return hash(tuple(arguments[1:]))
