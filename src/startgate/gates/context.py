"""What the gates share, and how work on a held task gets to a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from startgate.errors import NotReadable, Overloaded
from startgate.events import Container, Event, EventType, Gate, timestamp
from startgate.exits import Exits
from startgate.gates.marks import PidFiles, Programs
from startgate.hold import Hold, Released
from startgate.inherited.notes import Notes
from startgate.kernel.process import Proc
from startgate.lifecycle import Entry, Lifecycle
from startgate.listeners import Listeners, lost
from startgate.records import ExecRecord
from startgate.runtimes import environment
from startgate.workers import Workers

log = logging.getLogger(__name__)

Job = Callable[[], object]
"""Work on a held task: on a worker, where it may wait. It answers the hold."""


@dataclass(frozen=True)
class Context:
    """The parts of a watcher that its gates use."""

    proc: Proc
    lifecycle: Lifecycle
    listeners: Listeners
    exits: Exits
    workers: Workers
    """For all that may run a callback: they may all be stuck."""
    housekeeping: Workers
    """For what must go on even then: ends, and log lines of the reading threads."""
    pid_files: PidFiles
    programs: Programs
    capabilities: frozenset[str]
    notes: Notes = field(default_factory=Notes)
    exec_env: environment.Names = ()
    """The environment variables of an `exec` that its event tells."""
    room: AbstractContextManager[object] = field(default_factory=nullcontext)
    """What a job enters: `fdlimit.room_for_jobs`."""
    failed: Callable[[str], object] = log.critical
    """Told what a watcher can't go on without: it ends, loudly. Never waits."""

    def note(self, entry: Entry, *, untold: bool = False) -> None:
        """Note how it stands with a container, for a worker after us. On a worker.

        `untold`: its `creating` is told by us after its command is let go, or by that worker.
        """
        self.notes.save(entry, self.pid_files, self.programs, untold=untold)

    def limit(self, hold: Hold) -> None:
        """See to it that it is told if the keeper's deadline answers, whatever becomes of the job."""
        hold.before_expiry = lambda: self._tell_lost(hold)

    def submit(self, hold: Hold, job: Job) -> None:
        """Do a job on a worker. Never waits."""
        self.workers.submit(lambda: self.do(hold, job))

    def _tell_lost(self, hold: Hold) -> None:
        """The deadline passed before the job came to its events."""
        answer = "denied" if hold.denied else "let go"
        self.listeners.publish(lost(f"a task was {answer} after {hold.held_us / 1e6:.1f} s, unexamined"))

    def do(self, hold: Hold, job: Job) -> None:
        """Do a job here; the task is answered, and told of, where it fails."""
        try:
            with self.room:
                job()
        except Released:
            log.debug("a hold was answered before its work was done")
        except (NotReadable, Overloaded, OSError) as error:
            hold.release()  # often done already: jobs work in `with hold`
            if self._was_killed(hold):
                log.info("a held runtime command was killed: %s", error)
                return  # it starts nothing
            answer = "denied" if hold.denied else "let go"
            self.listeners.publish(lost(f"a runtime command was {answer} unexamined: {error}"))
            log.warning("a runtime command was %s unexamined: %s", answer, error)
        except BaseException as error:
            hold.release()
            self.listeners.publish(
                lost(f"a runtime command was not examined, by an error of ours: {error!r}")
            )
            raise

    def _was_killed(self, hold: Hold) -> bool:
        """Is the held task dead, or a zombie, whose namespaces can't be read any more?"""
        try:
            return bool(hold.pid) and self.proc.stat(hold.pid).state in "ZX"
        except NotReadable:
            return True


def runtime_path(proc: Proc, record: ExecRecord, hold: Hold) -> str:
    """Return the binary's path on the host; argv[0] where it has none, or it is not known.

    A file on a detached mount reads as `/`: crun's clone of itself.
    """
    path = hold.path or "/"
    if path == "/":
        return os.fsdecode(record.arguments[0])
    return proc.on_host(path)


def event(event_type: EventType, gate: Gate, container: Container) -> Event:
    """Return an event of now."""
    return Event(type=event_type, time=timestamp(), gate=gate, container=container)
