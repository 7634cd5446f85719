"""`existing`: the containers that were there before us, and those whose start fell in between."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from startgate.errors import NotReadable
from startgate.gates.context import Context, event
from startgate.gates.ends import Ends
from startgate.gates.keys import named_by
from startgate.kernel.process import ProcessId
from startgate.lifecycle import End, Entry, Key, State
from startgate.listeners import lost
from startgate.running import Running, Scan, commands, executable
from startgate.runtimes import commandline, state
from startgate.runtimes.commandline import Command, Invocation

log = logging.getLogger(__name__)

_PAUSE = 0.01
_PAUSE_LIMIT = 1.0
_FOLLOW_LIMIT = 60.0
_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class _Start:
    """A runtime command that was executed before the binaries were marked."""

    runtime: ProcessId
    key: Key


class Existing:
    """Adopts containers that no gate has seen. Runs on one worker, once, after the marks are placed.

    A start is seen by a gate, or its runtime runs already when the marks are in place: then it
    is waited for. So none falls in between, and `Lifecycle.adopt` tells each once.
    """

    def __init__(self, context: Context, ends: Ends, runtime: Callable[[str], None]) -> None:
        """`runtime` is told the path of each runtime binary that shims and conmons execute."""
        self._context = context
        self._runtime = runtime
        self._ends = ends
        self._scan = Scan(context.proc, context.capabilities, lambda: context.listeners.want_actual)
        self._inits: set[ProcessId] = set()
        """Of containers that are known: a link to a state directory is another name for all that is in it."""
        self._closed = threading.Event()
        self._done = threading.Event()
        self._done.set()

    def start(self) -> None:
        """Look on a worker; never waits."""
        self._done.clear()
        self._context.workers.submit(self._run)

    def close(self) -> None:
        """End the looking; it may be stuck in a file, and is left behind then."""
        self._closed.set()
        self._done.wait(_PATIENCE)

    def _run(self) -> None:
        try:
            starts = self._starts()
            watches = (entry.init_watch for entry in self._context.lifecycle.containers())
            self._inits = {watch.process for watch in watches if watch}
            for running in self._scan:
                if self._closed.is_set():
                    return
                self._adopt(running)
                self._tell_runtime(running.container.runtime_path)
            self._follow(starts)
        except OSError as error:
            self._context.listeners.publish(lost(f"containers that run already are not all known: {error}"))
            log.error("looking for containers that run already: %s", error)
        finally:
            self._done.set()

    def _tell_runtime(self, path: str | None) -> None:
        """The next container of that engine will be made by the same binary."""
        if path and path.startswith("/"):
            self._runtime(path)

    def _starts(self) -> list[_Start]:
        """Those that were executed after the marks are the lifecycle's: it knows their processes."""
        found = []
        for command in commands(self._context.proc):
            call = commandline.parse([os.fsencode(word) for word in command.words])
            if call.command.starts:
                path, pid = executable(self._context.proc, command), command.process.pid
                with suppress(NotReadable):
                    found.append(_Start(command.process, named_by(self._context.proc, call, path, pid).key))
        known = {entry.runtime for entry in self._context.lifecycle.containers()}
        return [start for start in found if start.runtime not in known]

    def _follow(self, starts: list[_Start]) -> None:
        """Wait until each has made its container, or has ended."""
        until, pause = time.monotonic() + _FOLLOW_LIMIT, _PAUSE
        while starts and time.monotonic() < until and not self._closed.is_set():
            starts = [start for start in starts if self._is_under_way(start)]
            self._closed.wait(pause if starts else 0)
            pause = min(2 * pause, _PAUSE_LIMIT)

    def _is_under_way(self, start: _Start) -> bool:
        alive = self._context.proc.is_alive(start.runtime)  # first: it may end while we look
        if running := self._scan.find(start.key):
            self._adopt(running)
            return False
        return alive

    def _adopt(self, running: Running) -> None:
        if running.process in self._inits:
            return
        entry = _entry(running)
        try:
            entry.init_watch = self._context.exits.watch(
                running.process, lambda status: self._ends.ended(entry, End(status))
            )
        except (NotReadable, OSError) as error:
            log.info("container %s is not told: %s", running.container.id, error)
            return
        if not self._context.lifecycle.adopt(entry):
            self._context.exits.unwatch(entry.init_watch)
            return
        self._inits.add(running.process)
        self._context.listeners.publish(event("existing", "none", entry.container))
        self._context.note(entry)
        if end := self._context.lifecycle.told(entry):
            self._ends.ended(entry, end)


def _entry(running: Running) -> Entry:
    return Entry(
        key=running.key,
        invocation=Invocation(Command.CREATE, running.key.id, root=running.key.root),
        runtime=running.process,
        container=running.container,
        command=None,
        state=State.RUNNING if running.started else State.CREATING,
        passed=running.started,
        gated=True,
        flavour=state.flavour(running.container.runtime or ""),
        config=None if running.started else running.config,
    )
