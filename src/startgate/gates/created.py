"""`created` and `started`: whichever gate first knows a container's pid passes it, once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from msgspec.structs import replace

from startgate import running
from startgate.errors import NotReadable
from startgate.events import Container, Event, Gate, Reason
from startgate.exits import Watch
from startgate.gates import actual, failure, inits, spare
from startgate.gates.context import Context, event
from startgate.gates.ends import Ends
from startgate.gates.gaps import Gaps
from startgate.gates.untold import Untold, lateness
from startgate.hold import Hold
from startgate.kernel.process import Proc, ProcessId, boot_seconds
from startgate.lifecycle import End, Entry, Start, State
from startgate.passage import Passage, denied, notes_of
from startgate.runtimes.commandline import Command

log = logging.getLogger(__name__)

_POLL = 0.005
_POLL_LIMIT = 10.0


ByState = Callable[[Proc, Entry, int | None], ProcessId | None]


class Created:
    """The gates at which a container's pid is known. All methods run on workers."""

    def __init__(
        self,
        context: Context,
        by_state: ByState = inits.by_state,
        *,
        marks: bool = True,
    ) -> None:
        """`by_state` looks for a container's init where no gate tells it. Without `marks` nothing
        is held but runtime commands: then a refusal at `start` fails that."""
        self._context = context
        self._by_state = by_state
        self._marks = marks
        self.ends = Ends(context)
        self.untold = Untold(context, self.ends.ended)
        self.gaps = Gaps(context.lifecycle, self.look_for)

    def at_pid_file(self, entry: Entry, hold: Hold) -> None:
        """Somebody reads the pid file of a container that is being created."""
        with hold:
            self._at_pid_file(entry, inits.by_pid_file(self._context.proc, entry, hold), hold)

    def _at_pid_file(self, entry: Entry, init: ProcessId | None, hold: Hold) -> None:
        if init and not entry.verdict and not self._context.listeners.wants("created"):
            self._let_go(entry, init, hold)
        elif container := self._adopt(entry, init):
            self._pass(entry, hold, [_created(entry, "pidfile", container)])

    def _let_go(self, entry: Entry, init: ProcessId, hold: Hold) -> None:
        """Nobody is asked: let the reader go on, and look at the init then, which `start` waits for."""
        hold.before_expiry = None  # told below, late or not
        self.untold.wait(entry)
        container = replace(entry.container, pid=init.pid, pid_start_time=init.start_time)
        if not self._context.lifecycle.claim(entry, container):
            return
        self._unmark(entry)
        held_us = hold.held_us
        reason = None if hold.allow() else lateness(hold)
        try:
            self._learn(entry, init)
        finally:
            created = replace(_created(entry, "pidfile", entry.container), held_us=held_us, reason=reason)
            self._context.listeners.publish(created)
            self._passed(entry)
        self._context.note(entry)
        if entry.init_watch is None:
            self.ends.ended(entry, End(self._context.exits.gone(init)))

    def _learn(self, entry: Entry, init: ProcessId) -> None:
        """Complete the record of a container that is let go, which may have ended already."""
        before = entry.init_watch
        try:
            entry.init_watch = self._watch_init(entry, init)
            container = self._complete(entry, init)
            if self._context.proc.is_alive(init):  # else its pid may have been another's
                entry.container = container
        except (NotReadable, OSError) as error:
            log.warning("container %s: its init %d is gone: %s", entry.container.id, init.pid, error)
        if before and before is not entry.init_watch:
            self._context.exits.unwatch(before)

    def at_start(self, entry: Entry, hold: Hold, tid: int | None = None) -> None:
        """`start` of a container whose gate nobody has passed, or somebody just passes."""
        if self._context.lifecycle.wait(entry, hold):
            return
        init = self._by_state(self._context.proc, entry, tid)
        if container := self._adopt(entry, init):
            self._pass(entry, hold, [_created(entry, "start", container)])
        elif not self._context.lifecycle.wait(entry, hold):
            hold.allow()

    def at_first_exec(self, entries: list[Entry], pid: int, hold: Hold) -> None:
        """A process executes what is the first program of these containers."""
        with hold:
            entry = inits.by_exec(self._context.proc, entries, pid, self._context.lifecycle.runtimes())
            if entry is None:
                return
            self._forget_program(entry, hold)
            init = self._identify(pid)
            container = self._adopt(entry, init, final=True)
            if not self._context.lifecycle.started(entry):
                return
            if init and not container:
                actual.refresh(self._context, entry, init, final=True)
            events = [_created(entry, "first-exec", container)] if container else []
            events.append(event("started", "first-exec", entry.container))
            self._pass(entry, hold, events)

    def _forget_program(self, entry: Entry, hold: Hold) -> None:
        try:
            with hold.fd() as fd:
                self._context.programs.remove(entry, fd)
        except NotReadable:
            self._context.programs.remove(entry)

    def late(self, entry: Entry, init: ProcessId, reason: Reason | None = None) -> None:
        """No gate held the container, but the runtime says that it is there."""
        if container := self._adopt(entry, init, final=True):
            why = reason.message if reason else "no gate held it"
            self._tell_late(entry, _created(entry, "none", container), init, why)
            self._context.lifecycle.started(entry)
            self._passed(entry)
            self._context.note(entry)

    def _tell_late(self, entry: Entry, created: Event, init: ProcessId, why: str) -> None:
        """It runs: all that a refusal can do is to kill it."""
        decision = self._context.listeners.call(created)
        age = max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - boot_seconds(init))
        message = f"{why}: its program has run for up to {age:.2f} s"
        told = replace(created, policy=created.policy + notes_of(decision))
        verdict = entry.verdict or decision.deny
        if verdict and self._marks and self.ends.kill(entry):
            entry.verdict = verdict
            message = f"{verdict.message} (killed: {message})"
            self._context.listeners.publish(denied(told, replace(verdict, message=message), 0))
        else:
            self._context.listeners.publish(replace(told, reason=Reason(message)))

    def look_for(self, *entries: Entry, reason: Reason | None = None) -> None:
        """Ask the runtime's state again and again: for containers that no gate will hold."""
        until, workers = time.monotonic() + _POLL_LIMIT, self._context.workers
        while time.monotonic() < until and not workers.closed:
            left = [entry for entry in entries if entry.state is State.CREATING]
            if not left:
                return
            for entry in left:
                self.late_if_it_runs(entry, reason)
            time.sleep(_POLL * len(left))

    def late_if_it_runs(self, entry: Entry, reason: Reason | None = None, tid: int | None = None) -> None:
        """`late`, where its state names an init that executes its program by now."""
        init = self._by_state(self._context.proc, entry, tid)
        if init and self._runs(entry, init):
            self.late(entry, init, reason)

    def _runs(self, entry: Entry, init: ProcessId) -> bool:
        """Does its program run? Before that the start may still fail. A restored one executes nothing."""
        if entry.invocation.command is Command.RESTORE:
            return True
        try:
            return self._context.proc.stat(init.pid).executed
        except NotReadable:
            return False

    def watch_runtime(self, entry: Entry) -> None:
        """Its end tells of starts that fail, and of `create`s whose pid file nobody reads."""

        watched = entry.runtime

        def ended(status: int | None) -> None:
            if entry.state is State.CREATING and entry.runtime == watched:
                self._context.housekeeping.submit(lambda: self.runtime_ended(entry, status))

        # When `create` ends somebody reads the pid file right then, most likely: keep out of the way.
        patient = entry.invocation.command is Command.CREATE
        entry.runtime_watch = self._context.exits.watch(entry.runtime, ended, patient=patient)

    def pass_on(self, entry: Entry, start: Start) -> bool:
        """A wrapper's command was followed by another: wait for that one's container. False: too late."""
        self.untold.wait(entry)
        before = entry.runtime_watch
        self._context.notes.drop(entry)
        if not self._context.lifecycle.pass_on(entry, start):
            return False
        if before:
            self._context.exits.unwatch(before)
        self._context.pid_files.remove(entry)
        self._context.programs.remove(entry)
        return True

    def runtime_ended(self, entry: Entry, status: int | None) -> None:
        """The runtime process ended before any gate told the pid."""
        self.untold.wait(entry)
        if entry.state is not State.CREATING:
            return
        init = self._init_after(entry, status)
        if init is None:
            self.ends.ended(entry, End(status, self._failure(entry, status)))
        elif entry.invocation.command is Command.CREATE:
            self._expect_gate(entry, init)
            self._expect_first_exec(entry, init)
        elif entry.gated:
            self._expect_gate(entry, init)
        else:  # detached, or it was killed: its program runs, or is about to
            self._expect_gate(entry, init)
            self._context.workers.submit(lambda: self.look_for(entry))

    def _failure(self, entry: Entry, status: int | None) -> str:
        others = [each for each in self._context.lifecycle.containers() if each is not entry]
        return failure.describe(self._context.proc, entry, status, others)

    def _init_after(self, entry: Entry, status: int | None) -> ProcessId | None:
        """Return what a runtime that ended has started, as its state tells, which may be another's by now."""
        rivals = [] if status == 0 else self._context.lifecycle.rivals(entry)
        if rivals and status:
            return None  # one that failed has no init
        init = self._by_state(self._context.proc, entry, None)
        # Did it fail? Not known: then what began after a rival did is taken for the rival's.
        theirs = init and any(rival.runtime.start_time <= init.start_time for rival in rivals)
        return None if theirs else init

    def expect_end(self, entry: Entry, tid: int | None = None) -> None:
        """Somebody is about to kill or delete a container: watch its init before it is gone."""
        self.untold.wait(entry)
        if entry.state is not State.CREATING or entry.invocation.command is not Command.CREATE:
            return
        if init := self._by_state(self._context.proc, entry, tid):
            self._expect_gate(entry, init)

    def _expect_gate(self, entry: Entry, init: ProcessId) -> None:
        """A gate is ahead: `start`, in hours perhaps, or the first exec; or it ends before."""
        try:
            watch = self._watch_init(entry, init)
        except (NotReadable, OSError):
            self.ends.ended(entry, End(None, "the container ended before it was started"))
            return
        described = replace(entry.container, pid=init.pid, pid_start_time=init.start_time)
        if not entry.init_watch and self._context.lifecycle.describe(entry, described):
            entry.init_watch = watch
        else:
            self._context.exits.unwatch(watch)

    def _expect_first_exec(self, entry: Entry, init: ProcessId) -> None:
        """Nobody has read its pid file, and it may run without any `start`: for whoever opens runc's
        exec.fifo. So its first exec is held, until another gate is passed."""
        if self._marks:
            spare.hold(self._context, entry, init.pid)
        if self._runs(entry, init):  # somebody was faster
            self._context.workers.submit(lambda: self.late(entry, init))

    def _watch_init(self, entry: Entry, process: ProcessId) -> Watch:
        return self._context.exits.watch(process, lambda status: self.ends.ended(entry, End(status)))

    def _pass(self, entry: Entry, hold: Hold, events: list[Event]) -> None:
        """Where it is the init that is held, a refusal fails its execve. Elsewhere the init is killed:
        no file that is marked would do, it may execute another by then.
        """
        held = events[0].gate == "first-exec"
        first = events[0].type == "created"
        passage = Passage(
            hold,
            self._context.listeners,
            events,
            (lambda: self._passed(entry)) if first else (lambda: None),
            end=lambda late: self._marks and (late or not held) and self.ends.kill(entry),
        )
        if entry.verdict:
            passage.refuse(events[0], entry.verdict)
        else:
            entry.verdict = passage.run(events)
        self._context.note(entry)

    def _passed(self, entry: Entry) -> None:
        waiting, end = self._context.lifecycle.passed(entry)
        for hold in waiting:
            hold.allow()
        if entry.runtime_watch:
            self._context.exits.unwatch(entry.runtime_watch)
        if end:
            self.ends.ended(entry, end)

    def _identify(self, pid: int) -> ProcessId | None:
        try:
            return self._context.proc.identify(pid)
        except NotReadable:
            return None

    def _adopt(self, entry: Entry, init: ProcessId | None, *, final: bool = False) -> Container | None:
        """CREATING -> CREATED: complete the record, watch the end. None: another gate did. `final`: it
        executes its program, or is held there."""
        self.untold.wait(entry)
        if init is None or entry.state is not State.CREATING:
            return None
        try:
            container = self._complete(entry, init, final=final)
            watch = self._watch_init(entry, init)  # proves that all of it was this process's
        except (NotReadable, OSError) as error:
            log.warning("container %s: its init %d is gone: %s", entry.container.id, init.pid, error)
            return None
        return container if self._claim(entry, container, watch) else None

    def _complete(self, entry: Entry, init: ProcessId, *, final: bool = False) -> Container:
        """Raises NotReadable, OSError."""
        container = running.of_process(entry.container, self._context.proc, init)
        return actual.wanted(self._context, container, init, final=final)

    def _claim(self, entry: Entry, container: Container, watch: Watch) -> bool:
        """Is it ours to pass its gate?"""
        claimed = self._context.lifecycle.claim(entry, container)
        unneeded = entry.init_watch if claimed else watch
        if unneeded:
            self._context.exits.unwatch(unneeded)
        if claimed:
            entry.init_watch = watch  # the runtime's is dropped once the task goes on: `_passed`
            self._unmark(entry)
        return claimed

    def _unmark(self, entry: Entry) -> None:
        spare.drop(self._context, entry)
        self._context.pid_files.remove(entry)  # not later: who reads it reads on, to its end


def _created(entry: Entry, gate: Gate, container: Container) -> Event:
    """Return the event, with what rules said of the start since its `creating` was told."""
    return replace(event("created", gate, container), policy=entry.notes)
