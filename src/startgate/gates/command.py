"""The command gate: each execution of a runtime binary, held in its execve."""

from __future__ import annotations

import os

from startgate.errors import NotReadable
from startgate.gates.context import Context, Job, key_of, runtime_path
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.gates.executing import Executing
from startgate.gates.rootless import Rootless
from startgate.hold import Hold, Holder
from startgate.keeper.protocol import Held
from startgate.lifecycle import State
from startgate.records import ExecRecord, layout, procfs
from startgate.runtimes import commandline
from startgate.runtimes.commandline import Command, Invocation
from startgate.runtimes.signals import signal_number


class CommandGate:
    """Decides on each runtime command: on the reading thread, where that needs no waiting."""

    def __init__(
        self,
        context: Context,
        group: Holder,
        created: Created,
        rootless: Rootless,
    ) -> None:
        self._context = context
        self._created = created
        self._rootless = rootless
        self._creating = Creating(context, created)
        self._executing = Executing(context)

    def decide(self, held: Held, hold: Hold) -> Job | None:
        """Return what is to be done while the task is held; None: nothing. Never waits."""
        record = layout.decode(held.record) if held.record else None
        if record is None:
            if not held.pid:
                raise NotReadable("the held task was not found in the fanotify group")
            record = procfs.identify(self._context.proc, held.pid)
        if not record.trusted:
            return self._rootless.decide(record, hold)  # only root may have us mark, or believe an id
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
        path = runtime_path(self._context.proc, record, hold)
        if os.path.basename(path) == "conmon":
            return None  # it executes the runtime, which is held
        if call.command in (Command.KILL, Command.DELETE):
            return self._on_end(call, path, hold)
        if call.command is Command.START:
            return self._on_start(call, path, hold)
        executing = call.command is Command.EXEC
        hold.fail_closed = self._context.listeners.fails_closed("exec" if executing else "creating")
        work = self._executing.at_command if executing else self._creating.at_command
        return lambda: work(call, path, record, hold)

    def _on_end(self, call: Invocation, path: str, hold: Hold) -> Job | None:
        """A container is asked to end: its end is told from its init, which must be known by then."""
        entry = self._context.lifecycle.without_init(key_of(call, path))
        if entry is None:
            self._note_signal(call, path)
            return None

        def work() -> None:
            with hold:
                self._created.expect_end(entry)
                self._note_signal(call, path)

        return work

    def _note_signal(self, call: Invocation, path: str) -> None:
        if call.command is Command.KILL:
            self._context.lifecycle.signal(key_of(call, path), signal_number(call.signal))

    def _on_start(self, call: Invocation, path: str, hold: Hold) -> Job | None:
        entry = self._context.lifecycle.to_start(key_of(call, path))
        if entry is None or entry.state is State.STOPPED:
            return None
        return lambda: self._created.at_start(entry, hold)
