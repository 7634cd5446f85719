"""The command gate: each execution of a runtime binary, held in its execve."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque

from startgate.errors import NotReadable
from startgate.events import Reason
from startgate.gates import keys
from startgate.gates.context import Context, Job, runtime_path
from startgate.gates.created import Created
from startgate.gates.creating import Creating
from startgate.gates.execs import Execs
from startgate.gates.executing import Executing
from startgate.gates.freezing import TOLD, Freezing
from startgate.gates.rootless import Rootless
from startgate.hold import Hold, Holder
from startgate.keeper.protocol import Held
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Key, State
from startgate.records import ExecCounter, ExecRecord, layout, procfs
from startgate.runtimes import commandline
from startgate.runtimes.commandline import OF_CONTAINERS, Command, Invocation
from startgate.runtimes.signals import signal_number

log = logging.getLogger(__name__)

_REMEMBERED = 1024


class CommandGate:
    """Decides on each runtime command: on the reading thread, where that needs no waiting."""

    def __init__(
        self,
        context: Context,
        group: Holder,
        created: Created,
        rootless: Rootless,
        execs: Execs,
        *,
        counter: ExecCounter | None = None,
    ) -> None:
        """`counter` is told of what is decided here."""
        self._context = context
        self._created = created
        self._rootless = rootless
        self._counter = counter
        self._creating = Creating(context, created)
        self._executing = Executing(context, created, execs)
        self._freezing = Freezing(context)
        self._held: deque[ProcessId | None] = deque(maxlen=_REMEMBERED)
        """The processes whose starts were held last."""
        self._held_lock = threading.Lock()

    def decide(self, held: Held, hold: Hold) -> Job | None:
        """Return what is to be done while the task is held; None: nothing. Never waits."""
        record = layout.decode(held.record) if held.record else None
        if record is None:
            if not held.pid:
                raise NotReadable("the held task was not found in the fanotify group")
            record = procfs.identify(self._context.proc, held.pid)
        self._asked(record.tid)
        if not record.trusted:
            return self._rootless.decide(record, hold)  # only root may have us mark, or believe an id
        if not record.complete:
            return lambda: self._read_and_decide(record, hold)
        return self._on_arguments(record, hold)

    def _asked(self, tid: int) -> None:
        try:
            if self._counter:
                self._counter.asked(tid)
        except OSError as error:  # it will be counted as unseen
            log.warning("a gate can't say that it was asked: %s", error)

    def missed(self, call: Invocation, path: str, record: ExecRecord, reason: Reason) -> None:
        """On a worker: a start was not held, `reason` tells why. Nothing if it was.

        Raises NotReadable, Overloaded.
        """
        with self._held_lock:
            held = record.process in self._held
        if os.path.basename(path) != "conmon" and not held:
            self._creating.missed(call, path, record, reason)

    def _read_and_decide(self, record: ExecRecord, hold: Hold) -> None:
        """On a worker: read the arguments from the held task first."""
        job = self._on_arguments(procfs.complete(self._context.proc, record), hold)
        if job:
            job()
        else:
            hold.allow()

    def _on_arguments(self, record: ExecRecord, hold: Hold) -> Job | None:
        call = commandline.parse(record.arguments, hold.path)
        if call.command is Command.OTHER:
            return None
        path = runtime_path(self._context.proc, record, hold)
        if os.path.basename(path) == "conmon":
            return None  # it executes the runtime, which is held
        if call.command in OF_CONTAINERS:
            return self._on_container(call, path, record, hold)
        if call.command.starts:
            with self._held_lock:
                self._held.append(record.process)
        executing = call.command is Command.EXEC
        hold.fail_closed = self._context.listeners.fails_closed("exec" if executing else "creating")
        work = self._executing.at_command if executing else self._creating.at_command
        return lambda: work(call, path, record, hold)

    def _on_container(self, call: Invocation, path: str, record: ExecRecord, hold: Hold) -> Job | None:
        """A container that is there is started, paused, resumed, or asked to end."""
        if named := keys.plain(self._context.proc, call, path, record):
            return self._on_key(call, named.key, record, hold)
        if not self._context.lifecycle.knows(call.id):
            return None

        def work() -> None:
            named = keys.named_by(self._context.proc, call, path, record.tid)
            if job := self._on_key(call, named.key, record, hold):
                job()
            else:
                hold.allow()

        return work

    def _on_key(self, call: Invocation, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        if call.command is Command.START:
            return self._on_start(key, record, hold)
        if call.command in TOLD:
            return self._freezing.decide(call.command, key, record, hold)
        return self._on_end(call, key, record, hold)

    def _on_end(self, call: Invocation, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        """A container is asked to end: its end is told from its init, which must be known by then."""
        entry = self._context.lifecycle.without_init(key)
        if entry is None:
            self._note_signal(call, key)
            return None

        def work() -> None:
            with hold:
                self._created.expect_end(entry, record.tid)
                self._note_signal(call, key)

        return work

    def _note_signal(self, call: Invocation, key: Key) -> None:
        if call.command is Command.KILL:
            self._context.lifecycle.signal(key, signal_number(call.signal))

    def _on_start(self, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        if (entry := self._context.lifecycle.find(key)) and entry.verdict:
            hold.deny()  # refused, and killed: whatever is left of it
            return None
        entry = self._context.lifecycle.to_start(key)
        if entry is None or entry.state is State.STOPPED:
            return None
        return lambda: self._created.at_start(entry, hold, record.tid)
