"""`pause` and `resume`: told as `paused` and `resumed` once the runtime has done it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from startgate.errors import Overloaded
from startgate.events import EventType
from startgate.gates.begin import ancestors
from startgate.gates.callers import line_of
from startgate.gates.context import Context, Job, event
from startgate.hold import Hold
from startgate.kernel.process import ProcessId
from startgate.lifecycle import Entry, Key, State
from startgate.listeners import lost
from startgate.records import ExecRecord
from startgate.runtimes.commandline import Command

TOLD: dict[Command, EventType] = {Command.PAUSE: "paused", Command.RESUME: "resumed"}

_OF_ONE_USER = 128
"""Commands that are followed at once: each costs an fd, and a stopped one never ends."""


class Freezing:
    """Follows the runtime processes that freeze and thaw containers: only their exit code tells."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._followed: dict[ProcessId, tuple[Command, Entry]] = {}

    def decide(self, command: Command, key: Key, record: ExecRecord, hold: Hold) -> Job | None:
        """Return what is to be done while the runtime is held; None: nothing. Never waits."""
        entry = self._context.lifecycle.find(key)
        if entry is None:
            return None

        def work() -> None:
            with hold:
                self._follow(command, entry, record)

        return work

    def _follow(self, command: Command, entry: Entry, record: ExecRecord) -> None:
        """Wait for the command's end, elsewhere. Raises NotReadable where it is over, Overloaded, OSError."""
        runtime = record.process or self._context.proc.identify(record.tgid)
        if self._followed and self._is_followed(
            [runtime, *ancestors(line_of(self._context.proc, record))], (command, entry)
        ):
            return  # crun executes itself again; and what a wrapper executes is told at the wrapper's end
        with self._lock:
            if sum(other.key.uid == entry.key.uid for _, other in self._followed.values()) >= _OF_ONE_USER:
                raise Overloaded(f"{_OF_ONE_USER} commands that pause or resume containers run already")
            self._followed[runtime] = command, entry
        try:
            self._context.exits.watch(runtime, lambda status: self._ended(runtime, status))
        except BaseException:
            with self._lock:
                self._followed.pop(runtime, None)
            raise

    def _is_followed(self, line: Iterable[ProcessId], what: tuple[Command, Entry]) -> bool:
        with self._lock:
            return any(self._followed.get(process) == what for process in line)

    def _ended(self, runtime: ProcessId, status: int | None) -> None:
        """On the exits' thread: never waits."""
        with self._lock:
            followed = self._followed.pop(runtime, None)
        if followed is None or followed[1].state is State.STOPPED:
            return
        told, container = TOLD[followed[0]], followed[1].container
        if status is None:
            message = f"was {container.id} {told}? The runtime ended, and nobody could tell how"
            self._context.listeners.publish(lost(message))
        elif status == 0:
            self._context.listeners.publish(event(told, "none", container))
